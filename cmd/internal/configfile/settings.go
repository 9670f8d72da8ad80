package configfile

import (
	"cmp"
	"log/slog"
	"net"
	"reflect"
	"time"
)

// TLS is a certificate with its key. Reload: the files are read again.
type TLS struct {
	// CertificateFile holds the certificate chain, PEM. Reload.
	CertificateFile string `yaml:"certificate_file"`
	// KeyFile holds its private key, PEM; others must not be able to read it.
	// Reload.
	KeyFile string `yaml:"key_file"`
}

// Empty says whether nothing is given.
func (t TLS) Empty() bool { return t == TLS{} }

// Log says what is logged and how. Device tokens and bearer tokens never are.
type Log struct {
	// Level is "debug", "info", "warn" or "error". Empty: info. Reload.
	Level string `yaml:"level"`
	// Format is "json" or "text". Empty: json.
	Format string `yaml:"format"`
	// Mailboxes is how mailbox names appear: "hashed", with a key that is new
	// at each start, or "clear". Empty: hashed.
	Mailboxes string `yaml:"mailboxes"`
}

// Duration is a time.Duration written as in Go: 1s, 15m, 720h.
type Duration time.Duration

// String returns the duration as it is written in the file.
func (d Duration) String() string { return time.Duration(d).String() }

// SlogLevel returns the level, info (which is 0) where it is empty or wrong.
func (l Log) SlogLevel() slog.Level { return logLevels[l.Level] }

var logLevels = map[string]slog.Level{
	"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "error": slog.LevelError,
}

// Changed names the sections that differ between two configurations: the tags of
// T's fields.
func Changed[T any](old, next T) (sections []string) {
	a, b := reflect.ValueOf(old), reflect.ValueOf(next)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			sections = append(sections, a.Type().Field(i).Tag.Get("yaml"))
		}
	}
	return sections
}

// OpsAddress returns the address of a listener for operators; empty: it is "off". Where
// none is given, preset holds.
func OpsAddress(given, preset string) string {
	if given == "off" {
		return ""
	}
	return cmp.Or(given, preset)
}

// Hosts are the names by which a listener is asked: the host of its address, and more.
func Hosts(address string, more []string) []string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return more
	}
	return append([]string{host}, more...)
}
