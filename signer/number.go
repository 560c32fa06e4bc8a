package signer

import (
	"math"
	"strconv"
)

// safeInteger is the bound of the integers that every JSON reader keeps
// (RFC 7493 section 2.2): a date must stay below it in magnitude.
const safeInteger = 1 << 53

// number scans the number at the position (RFC 8259 section 6).
func (s *scanner) number() error {
	start := s.pos
	if s.data[s.pos] == '-' {
		s.pos++
	}
	lead := s.pos
	whole := s.digits()
	switch {
	case whole == 0:
		return s.unexpected("a digit")
	case whole > 1 && s.data[lead] == '0':
		s.pos = start
		return s.fail(CodeInvalidJSON, "write numbers without leading zeros")
	}
	if s.at('.') {
		if s.digits() == 0 {
			return s.unexpected("a digit")
		}
	}
	exponent := s.at('e') || s.at('E')
	if exponent {
		if !s.at('+') {
			s.at('-')
		}
		if s.digits() == 0 {
			return s.unexpected("a digit")
		}
	}
	// The largest float64 has 309 digits: only these can overflow.
	if exponent || whole > 300 {
		if f, _ := strconv.ParseFloat(string(s.data[start:s.pos]), 64); math.IsInf(f, 0) {
			s.pos = start
			return s.fail(CodeNumberRange, "numbers must fit a 64-bit float")
		}
	}
	return nil
}

// at steps over c if it is next.
func (s *scanner) at(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// digits steps over decimal digits and counts them.
func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// date is a NumericDate (RFC 7519 section 2), floored to whole seconds.
type date struct {
	present bool
	plain   bool // it was written as a plain integer
	sec     int64
}

// parseDate floors a number literal that was scanned, exactly: no float is
// involved. It reports false for 2^53 and beyond in magnitude.
func parseDate(lit []byte) (date, bool) {
	negative := lit[0] == '-'
	if negative {
		lit = lit[1:]
	}
	d := date{present: true, plain: !negative || lit[0] != '0'}
	mantissa, exp, point := lit, 0, -1
	for i, c := range lit {
		if c == '.' {
			point, d.plain = i, false
		}
		if c == 'e' || c == 'E' {
			mantissa, exp, d.plain = lit[:i], clampedInt(lit[i+1:]), false
			break
		}
	}
	if point < 0 {
		point = len(mantissa)
	}
	sec, fraction, ok := decimalFloor(mantissa, point, exp)
	if negative {
		if sec = -sec; fraction {
			sec--
		}
	}
	d.sec = sec
	return d, ok && -safeInteger < sec && sec < safeInteger
}

// decimalFloor gives the integer part of mantissa * 10^exp, whose point stands
// at index point, and whether anything but zeros follows it.
func decimalFloor(mantissa []byte, point, exp int) (whole int64, fraction, ok bool) {
	// place is how many digits stand before the point from the current one on.
	place := point + exp
	for i, c := range mantissa {
		switch {
		case c == '.':
			continue
		case c == '0' && whole == 0: // leads
		case place <= 0:
			return whole, anyDigit(mantissa[i:]), true
		case place > 16:
			return 0, false, false
		default:
			whole = whole*10 + int64(c-'0')
		}
		place--
	}
	for ; place > 0 && whole != 0; place-- {
		if whole *= 10; whole >= safeInteger {
			return 0, false, false
		}
	}
	return whole, false, true
}

// anyDigit reports whether b holds a digit other than zero.
func anyDigit(b []byte) bool {
	for _, c := range b {
		if '1' <= c && c <= '9' {
			return true
		}
	}
	return false
}

// clampedInt reads a decimal exponent. Beyond a billion it stays there: more
// than any text has digits.
func clampedInt(b []byte) int {
	negative := b[0] == '-'
	if b[0] == '-' || b[0] == '+' {
		b = b[1:]
	}
	n := 0
	for _, c := range b {
		if n = n*10 + int(c-'0'); n > 1e9 {
			n = 1e9
		}
	}
	if negative {
		return -n
	}
	return n
}
