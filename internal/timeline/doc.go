// Package timeline draws the life of a keyset's keys for a terminal: what is
// published, what signs, and what happens next.
//
//	                        now
//	                         ▼
//	ES256  NzbLsXh8 ███████▒ │
//	       kPrK_qmx ░░░░░░░███████████████▒
//	       (next)          ░░░░░░░░░░░░░░░███████████████▒
//	       (next+1)          │            ░░░░░░░░░░░░░░░████
//	                ───────┬─▲────────────┬──────────────┬───
//	                       1 Apr          1 May          1 Jun
//
// A column stands for a stretch of time, and a key may be in several states
// during it. Three rules say what is drawn, so that nothing that happens stays
// invisible:
//
//   - A column shows the state that fills most of it.
//   - A state that fills most of no column is given the one that it fills best,
//     be it for a second.
//   - If two such states want the same column, or a state would be driven from
//     its only one, active wins over retiring and retiring over standby.
//
// Nothing here knows the present: time is in the options.
package timeline
