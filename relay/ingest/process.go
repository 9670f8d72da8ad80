package ingest

import "time"

// ProcessStatus is what the process tells about itself.
type ProcessStatus struct {
	Version, Instance string
	StartedAt         time.Time
	Ready             bool
	NotReadyReason    string // for people; empty: ready
	Apps              []AppStatus
}

// AppStatus is one configured app, in the configuration's order.
type AppStatus struct {
	Name, Topic          string
	Sandbox              bool
	Credential           string // "token" or "certificate"
	Engine               string // "native" or "apns2"
	Connections          uint32
	StreamsGranted       uint32
	PushesInFlight       uint32
	State                string        // "up", "connecting", "outage", "refused", "misconfigured"
	Quarantined          uint64        // subscriptions whose device APNs refuses, and that are kept
	Refused              string        // what APNs says, with State "refused"
	RefusedSince         time.Time     // since when
	LastError            string        // for people; empty: none
	ProviderTokenAge     time.Duration // 0: none
	CertificateExpiresAt time.Time     // zero: no certificate
}
