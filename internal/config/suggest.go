package config

import (
	"slices"
	"strings"
)

// nearest returns the word that name was probably meant to be, or nothing: one
// that differs only in case, hyphens and underscores, or in a few letters, or
// that is cut off or spelt out.
func nearest(name string, words []string) string {
	if len(name) > 64 {
		return ""
	}
	best, fewest := "", 3
	for _, word := range words {
		a, b := bare(name), bare(word)
		if a == b {
			return word
		}
		limit := min(2, (min(len(a), len(b))+1)/3)
		if n := typos(a, b); n <= limit && n < fewest {
			best, fewest = word, n
		}
	}
	for _, word := range words {
		a, b := bare(name), bare(word)
		if best == "" && min(len(a), len(b)) >= 3 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			best = word
		}
	}
	return best
}

func bare(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
}

// typos counts the letters to insert, remove, replace or swap with their
// neighbour to turn a into b.
func typos(a, b string) int {
	var before, above []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := above[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = slices.Min([]int{replace, above[j] + 1, row[j-1] + 1})
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
