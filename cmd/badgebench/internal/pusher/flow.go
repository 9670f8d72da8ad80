package pusher

import "time"

// Rate returns how many pushes a second were accepted between two moments.
func (f *Flow) Rate(from, to time.Duration) float64 {
	a, b := f.at(from), f.at(to)
	if b.At <= a.At {
		return 0
	}
	return float64(b.Accepted-a.Accepted) / (b.At - a.At).Seconds()
}

// at returns the first sample at or after a moment, or the last.
func (f *Flow) at(t time.Duration) Sample {
	for _, s := range f.Samples {
		if s.At >= t {
			return s
		}
	}
	return f.Samples[len(f.Samples)-1]
}

// Reached returns when the flow first was at a rate for half a second.
func (f *Flow) Reached(rate float64) (at time.Duration, ok bool) {
	const window = 500 * time.Millisecond
	for _, s := range f.Samples {
		if f.at(s.At+window).At >= s.At+window && f.Rate(s.At, s.At+window) >= rate {
			return s.At, true
		}
	}
	return 0, false
}

// MostConnects returns the most attempts to connect between two samples at
// most a window apart.
func (f *Flow) MostConnects(window time.Duration) (most int64) {
	for i, a := range f.Samples {
		for _, b := range f.Samples[i:] {
			if b.At-a.At <= window {
				most = max(most, b.Connects-a.Connects)
			}
		}
	}
	return most
}
