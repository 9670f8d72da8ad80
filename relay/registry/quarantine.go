package registry

import (
	"encoding/json"
	"fmt"

	"badgerelay/apns"
	"badgerelay/relay"
)

// quarantineRow is a relay.Quarantine as it is kept. Times are milliseconds since
// 1970.
type quarantineRow struct {
	Generation uint64 `json:"generation"`
	Reason     string `json:"reason"`
	Since      int64  `json:"since"`
	RefusedAt  int64  `json:"refused_at"`
	Refusals   int    `json:"refusals"`
	Registered int64  `json:"registered_at"`
}

// encodeQuarantine returns the column's value; nil is nothing.
func encodeQuarantine(q *relay.Quarantine) []byte {
	if q == nil {
		return []byte{}
	}
	data, err := json.Marshal(quarantineRow{
		Generation: uint64(q.Generation), Reason: string(q.Reason), Since: q.Since.UnixMilli(),
		RefusedAt: q.RefusedAt.UnixMilli(), Refusals: q.Refusals, Registered: q.Registered.UnixMilli(),
	})
	if err != nil {
		panic(err) // numbers and a string
	}
	return data
}

// quarantine returns what a row says of a device's quarantine; one that can't be
// read is none, so that the device gets its badges.
func (s *store) quarantine(data []byte) *relay.Quarantine {
	q, err := decodeQuarantine(data)
	if err != nil {
		s.passOver("subscriptions", err)
	}
	return q
}

func decodeQuarantine(data []byte) (*relay.Quarantine, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var row quarantineRow
	if err := json.Unmarshal(data, &row); err != nil {
		return nil, fmt.Errorf("read quarantine: %w", err)
	}
	return &relay.Quarantine{
		Generation: relay.Generation(row.Generation), Reason: apns.Reason(row.Reason), Since: fromMillis(row.Since),
		RefusedAt: fromMillis(row.RefusedAt), Refusals: row.Refusals, Registered: fromMillis(row.Registered),
	}, nil
}
