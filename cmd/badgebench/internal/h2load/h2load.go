// Package h2load runs h2load, nghttp2's load generator in C, as the floor to
// compare a client with.
package h2load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sideshow/apns2/token"

	"badgerelay/cmd/internal/rig/names"
)

// ErrMissing is returned by Find when h2load is not installed.
var ErrMissing = errors.New("h2load is not installed")

// Find looks for the program.
func Find() error {
	if _, err := exec.LookPath("h2load"); err != nil {
		return ErrMissing
	}
	return nil
}

// Config says what to send, and where to.
type Config struct {
	Address     string
	KeyFile     string // signs the provider token
	Requests    int64
	Connections int
	Devices     int // that take turns
}

// Result is what h2load says of a run, and what it cost.
type Result struct {
	Succeeded, Failed int64
	PerSecond         float64
	CPU               time.Duration // user and system, start and end included
}

// body is a push of the size that badges have.
const body = `{"aps":{"badge":123}}`

// tokenField is where the provider token goes: nghttp2 never indexes a field
// called authorization, which would make its requests twice as long, so it is
// sent under another name.
const tokenField = "apns-authorization"

// Run sends requests as fast as they go: header fields like those of a push
// of the relay, one body, as many streams as APNs grants.
func Run(ctx context.Context, c Config) (Result, error) {
	dir, err := os.MkdirTemp("", "badgebench-h2load-")
	if err != nil {
		return Result{}, fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	urls, data := filepath.Join(dir, "urls"), filepath.Join(dir, "body")
	if err := errors.Join(os.WriteFile(urls, c.urls(), 0o600), os.WriteFile(data, []byte(body), 0o600)); err != nil {
		return Result{}, fmt.Errorf("write h2load's input: %w", err)
	}
	bearer, err := providerToken(c.KeyFile)
	if err != nil {
		return Result{}, err
	}
	cmd := exec.CommandContext(ctx, "h2load",
		"-n", strconv.FormatInt(c.Requests, 10), "-c", strconv.Itoa(c.Connections), "-m", "1000", "-t", "1",
		"-i", urls, "-d", data, "-H", tokenField+": bearer "+bearer, "-H", "apns-topic: "+names.Topic,
		"-H", "apns-push-type: alert", "-H", "apns-priority: 10",
		"-H", "apns-expiration: "+strconv.FormatInt(time.Now().Add(72*time.Hour).Unix(), 10))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return Result{}, fmt.Errorf("run h2load: %w: %s", err, out.String())
	}
	r, err := parse(out.String())
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, err
}

func (c *Config) urls() []byte {
	var b bytes.Buffer
	for i := range c.Devices {
		fmt.Fprintf(&b, "https://%s/3/device/%s\n", c.Address, names.Device(i).Hex())
	}
	return b.Bytes()
}

func providerToken(file string) (string, error) {
	key, err := token.AuthKeyFromFile(file)
	if err != nil {
		return "", fmt.Errorf("read signing key: %w", err)
	}
	t := &token.Token{AuthKey: key, KeyID: names.KeyID, TeamID: names.TeamID}
	if _, err := t.Generate(); err != nil {
		return "", fmt.Errorf("sign provider token: %w", err)
	}
	return t.Bearer, nil
}

var (
	rateLine    = regexp.MustCompile(`finished in .*, ([0-9.]+) req/s`)
	statusLine  = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
	requestLine = regexp.MustCompile(`requests: (\d+) total`)
)

// parse reads what h2load prints at its end.
func parse(out string) (r Result, err error) {
	rate, status, total := rateLine.FindStringSubmatch(out), statusLine.FindStringSubmatch(out), requestLine.FindStringSubmatch(out)
	if rate == nil || status == nil || total == nil {
		return r, fmt.Errorf("h2load says nothing that is understood: %s", strings.TrimSpace(out))
	}
	r.PerSecond, err = strconv.ParseFloat(rate[1], 64)
	if err != nil {
		return r, fmt.Errorf("read h2load's rate: %w", err)
	}
	all, _ := strconv.ParseInt(total[1], 10, 64) // digits, by the pattern
	r.Succeeded, _ = strconv.ParseInt(status[1], 10, 64)
	r.Failed = all - r.Succeeded
	return r, nil
}
