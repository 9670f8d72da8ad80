package command

import "time"

// Time is how a time is printed; the zero one is none.
func Time(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}

// ParseTime reads a time that a flag was given: as Time prints it, in another zone, or a
// date, in UTC. Empty is the zero time. The error is a UsageError.
func ParseTime(flag, given string) (at time.Time, err error) {
	if given == "" {
		return at, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err = time.Parse(layout, given); err == nil {
			return at, nil
		}
	}
	return at, Usage("%s %q is not a time such as 2027-01-31T00:00:00Z or 2027-01-31", flag, given)
}
