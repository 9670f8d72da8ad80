// Package config is the relay's configuration: one YAML file.
//
// The comments on Config's fields are its reference. The zero value works: it
// serves agents in plain text on loopback and knows no app. Every problem of a
// file is reported at once, with its line.
//
// The package reads files only to judge them (are they there, of the right
// kind, private enough); it keeps no secret, starts nothing and watches
// nothing. What can only be found out by trying, such as a port in use, is
// found out by the daemon.
package config

import "badgerelay/cmd/internal/configfile"

// What the relay's file has in common with others.
type (
	TLS      = configfile.TLS
	Log      = configfile.Log
	Duration = configfile.Duration
	Problem  = configfile.Problem
)

// Config is the whole file. Fields marked "reload" take effect on SIGHUP; the
// others are read at start only, and a reload that changes them says so in the
// log.
type Config struct {
	// Listen is where agents connect.
	Listen Listen `yaml:"listen"`
	// Admin is where operators connect.
	Admin Admin `yaml:"admin"`
	// Ops serves metrics, health and profiles.
	Ops Ops `yaml:"ops"`
	// Metadata serves the relay's auth metadata document.
	Metadata Metadata `yaml:"metadata"`
	// Registry holds organizations, credentials and subscriptions.
	Registry Registry `yaml:"registry"`
	// Auth says which tokens are accepted.
	Auth Auth `yaml:"auth"`
	// Relay tunes the way from event to push.
	Relay Relay `yaml:"relay"`
	// Apps are the apps whose icons get badges. None: every subscription is
	// refused. Reload: new apps, credentials, ca_file and
	// sum_across_organizations; an app that is removed or changed otherwise needs
	// a restart.
	Apps []App `yaml:"apps"`
	// Products maps a mail server product to the oldest version the relay
	// serves, beside Exchange: 15.0.775.38, which is Cumulative Update 3. A
	// product with an empty version has no minimum.
	Products map[string]string `yaml:"products"`
	// Limits protect the relay from its clients. Reload, save batch_events.
	Limits Limits `yaml:"limits"`
	// Log says what is logged and how.
	Log Log `yaml:"log"`
	// Tracing samples traces.
	Tracing Tracing `yaml:"tracing"`
	// DrainBudget bounds the whole of an orderly stop. 0: 25s, which fits in
	// the 30 s that Kubernetes grants a pod.
	DrainBudget Duration `yaml:"drain_budget"`
}

// Listen is the listener for agents.
type Listen struct {
	// Address is host:port. Empty: 127.0.0.1:8443.
	Address string `yaml:"address"`
	// TLS is the relay's certificate. Empty: plain text, on loopback only.
	TLS TLS `yaml:"tls"`
	// Reflection offers gRPC reflection. Absent: true.
	Reflection *bool `yaml:"reflection"`
}

// Admin is the operators' listener: a unix socket that only its owner can
// open, or TCP with mutual TLS.
type Admin struct {
	// Socket is the path of the unix socket, made with mode 0600. Empty:
	// /run/badgerelay/admin.sock, unless Address is set.
	Socket string `yaml:"socket"`
	// Address is host:port for TCP instead. Needs TLS and ClientCAFile.
	Address string `yaml:"address"`
	// TLS is the certificate shown to operators.
	TLS TLS `yaml:"tls"`
	// ClientCAFile holds the authorities that sign operators' certificates, PEM.
	ClientCAFile string `yaml:"client_ca_file"`
}

// Ops is the listener for metrics, health and profiles. It has no
// authentication: keep it inside.
type Ops struct {
	// Address is host:port. Empty: 127.0.0.1:9464. "off": not served.
	// Profiles (/debug/pprof/) are served only where it is a loopback address.
	Address string `yaml:"address"`
	// PerOrganization adds metrics that are labelled by organization: two
	// series for each that has an agent here.
	PerOrganization bool `yaml:"per_organization"`
	// Hosts are further names by which it is asked, such as that of a service in
	// a cluster. Loopback names and the address that a request arrives at are
	// known; others are refused, because a page of another site could use them.
	Hosts []string `yaml:"hosts"`
}

// Metadata is the HTTPS listener for /metadata/json/1, from which agents learn
// issuer, audience and endpoint.
type Metadata struct {
	// Address is host:port. Empty: not served.
	Address string `yaml:"address"`
	// TLS is its certificate. Empty: that of listen.
	TLS TLS `yaml:"tls"`
	// Location is the document's public address, named in the document.
	// Empty: https:// and the first of auth.authorities' hosts, with the port
	// of Address where it is not 443.
	Location string `yaml:"location"`
}

// Registry is the database: a file for one relay, or PostgreSQL for any number.
type Registry struct {
	// Path is the SQLite file. Empty, with URL empty too:
	// /var/lib/badgerelay/registry.db. It is made at the first start,
	// and so is its directory, for the relay's user alone.
	Path string `yaml:"path"`
	// URL is a PostgreSQL database, 14 or later, instead of Path, as libpq takes
	// it: postgres://badgerelay@db.example.com/badgerelay?sslmode=verify-full. Its
	// options are honoured, several hosts and pool_max_conns (10) among them.
	// Any number of relays may share it. The tables are made at the first start.
	URL string `yaml:"url"`
	// PasswordFile holds the password of URL on its first line; others must not
	// be able to read it. It is read for every connection, so a new password
	// needs no reload.
	PasswordFile string `yaml:"password_file"`
	// SubscriptionLifetime ends subscriptions that are not renewed. 0: never.
	// At least 1h.
	SubscriptionLifetime Duration `yaml:"subscription_lifetime"`
}

// Auth says which tokens are accepted.
type Auth struct {
	// Principal is the relay's GUID, to which tokens must be addressed. Empty:
	// 2c5f2d26-0e3d-4f4a-9a67-6b1d5c6f6b0e, badgerelay's own.
	Principal string `yaml:"principal"`
	// Authorities are the host or host:port names of this relay that tokens may
	// name; with a port other than 443, the port belongs to the name. Empty:
	// the listen address.
	Authorities []string `yaml:"authorities"`
	// ClockSkew is how far clocks may differ. 0: 5m. At most 1h.
	ClockSkew Duration `yaml:"clock_skew"`
	// MaxTokenSpan is the longest time between a token's nbf and exp. 0: 25h.
	// At most 168h.
	MaxTokenSpan Duration `yaml:"max_token_span"`
	// CacheSize is how many validated tokens are remembered. 0: 8192.
	CacheSize int `yaml:"cache_size"`
	// FollowMetadata makes the relay fetch the metadata documents of those
	// organizations that have an address for it, and take over new keys.
	// Absent: true.
	FollowMetadata *bool `yaml:"follow_metadata"`
	// FollowInterval is the time between two fetches of one document. 0: 8h.
	// At least 1h.
	FollowInterval Duration `yaml:"follow_interval"`
	// FollowCAFile holds the authorities that sign those servers'
	// certificates, PEM. Empty: the system's.
	FollowCAFile string `yaml:"follow_ca_file"`
}

// Relay tunes the way from event to push.
type Relay struct {
	// CoalescingWindow is how long the counts of one mailbox are gathered into
	// one push after its first. Absent: 1s. 0: not at all. At most 1m.
	CoalescingWindow *Duration `yaml:"coalescing_window"`
	// RefreshAfter is how long a device is trusted to show what APNs accepted;
	// after that the same count is pushed again. 0: 24h.
	RefreshAfter Duration `yaml:"refresh_after"`
	// RetryAfterServerError is how long the same count waits after APNs
	// answered 5xx. 0: 15m, which is what Apple asks.
	RetryAfterServerError Duration `yaml:"retry_after_server_error"`
	// MaxMailboxes bounds the mailboxes kept in memory, and with them the
	// relay's memory; others are looked up when they have an event. A registry
	// of more than four times as many is not read ahead. 0: 4000000.
	MaxMailboxes int `yaml:"max_mailboxes"`
}

// App is one app: a bundle id in one of Apple's environments.
type App struct {
	// Name is what subscriptions call it, 1 to 128 letters, digits, dots,
	// hyphens and underscores. Empty: the topic.
	Name string `yaml:"name"`
	// Topic is its APNs topic, the bundle id. Required.
	Topic string `yaml:"topic"`
	// Environment is "production" or "sandbox". Empty: production.
	Environment string `yaml:"environment"`
	// Token authenticates with a .p8 key. This or Certificate.
	Token AppToken `yaml:"token"`
	// Certificate authenticates with a TLS client certificate. This or Token.
	Certificate AppCertificate `yaml:"certificate"`
	// Engine is "native" or "apns2", the reference engine. Empty: native.
	Engine string `yaml:"engine"`
	// MaxConnections bounds the connections to APNs. 0: 8. At most 1000.
	MaxConnections int `yaml:"max_connections"`
	// ConnectsPerSecond bounds how fast they are opened; Apple treats churn as
	// an attack. 0: 2. At most 100.
	ConnectsPerSecond float64 `yaml:"connects_per_second"`
	// Address is host:port of another server than Apple's, such as the
	// simulator. Empty: Apple's for the environment.
	Address string `yaml:"address"`
	// CAFile holds the authorities that sign that server's certificate, PEM.
	// Empty: the system's. Reload.
	CAFile string `yaml:"ca_file"`
	// Proxy is the URL of an HTTP CONNECT proxy: http://proxy.example.com:3128.
	// Empty: none. The environment's proxy variables are not read.
	Proxy string `yaml:"proxy"`
	// AnswerTimeout is how long an answer may take before the connection is
	// sent a keepalive; a push is given up after three times that.
	// 0: 10s.
	AnswerTimeout Duration `yaml:"answer_timeout"`
	// Expiration is how long Apple keeps a badge for a device that is off.
	// 0: 72h. From 1h to 720h, the longest Apple keeps one.
	Expiration Duration `yaml:"expiration"`
	// SumAcrossOrganizations says whether a device that is on mailboxes of several
	// organizations shows the sum of all their counts. With false it shows those of
	// the organization that registered it first; the others' events end as
	// no_subscription for it. Where that one is disabled the next has the device, and
	// keeps it. The same at every relay. A reload applies it, and badges
	// follow; after a restart each follows with its device's next count. Empty: true.
	SumAcrossOrganizations *bool `yaml:"sum_across_organizations"`
}

// AppToken is the .p8 key of an Apple developer team.
type AppToken struct {
	// KeyFile is the .p8 file; others must not be able to read it. Reload.
	KeyFile string `yaml:"key_file"`
	// KeyID is its id, ten capital letters and digits. Reload.
	KeyID string `yaml:"key_id"`
	// TeamID is the team's id, ten capital letters and digits. Reload.
	TeamID string `yaml:"team_id"`
}

// AppCertificate is a TLS client certificate that Apple issued for the app.
type AppCertificate struct {
	// File holds the certificate: PEM, with the key in it or in KeyFile, or
	// PKCS #12 (.p12, .pfx) with the key. Reload.
	File string `yaml:"file"`
	// KeyFile holds the private key, PEM. Empty: it is in File. Reload.
	KeyFile string `yaml:"key_file"`
	// PasswordFile holds the password of the private key, in File or KeyFile, on
	// its first line. Empty: it has none. Reload.
	PasswordFile string `yaml:"password_file"`
}

// Limits protect the relay from its clients.
type Limits struct {
	// Connections bounds the agents' open connections; further ones are closed
	// before TLS. 0: 20000. Reload.
	Connections int `yaml:"connections"`
	// ConnectionsPerAddress bounds the open connections from one IP address, of
	// IPv6 from one /64; further ones are closed before TLS. 0: 1000. Reload.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	// Streams bounds the agents' open streams, each from its hello on. One that takes
	// the place of an older one of its process is not another; those that have not said
	// hello, and probes, are bounded apart, by ten more. 0: 20000. Reload.
	Streams int `yaml:"streams"`
	// StreamsPerOrganization bounds an organization's open streams in the same way,
	// where the organization has no limit of its own. 0: 1000. Reload.
	StreamsPerOrganization int `yaml:"streams_per_organization"`
	// BatchEvents is the most events of one batch. 0: 10000, which is also the
	// most.
	BatchEvents int `yaml:"batch_events"`
	// CallsPerSecond bounds an organization's unary calls; two seconds' worth
	// may come at once. 0: 200. Reload.
	CallsPerSecond float64 `yaml:"calls_per_second"`
	// PublishEventsPerSecond bounds the events of an organization's unary
	// calls. Streams are slowed instead. 0: 20000. Reload.
	PublishEventsPerSecond float64 `yaml:"publish_events_per_second"`
}

// Tracing samples traces. Where they go is said by the standard variables of
// OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT and the like); without one of
// them nothing is traced.
type Tracing struct {
	// SampleRatio is the share of batches traced, 0 to 1, unless
	// OTEL_TRACES_SAMPLER says otherwise. 0: 0.001.
	SampleRatio float64 `yaml:"sample_ratio"`
}
