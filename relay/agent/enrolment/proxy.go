package enrolment

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Proxy is the push notification proxy: whether and for whom counts are sent. Its URI is
// what Exchange shows of a proxy; counts go to the relays of AuthServer.
type Proxy struct {
	Enabled      bool      `json:"enabled"`
	Organization string    `json:"organization"`
	URI          string    `json:"uri"`
	GUID         string    `json:"guid"`
	WhenChanged  time.Time `json:"changedAt"`
	WhenCreated  time.Time `json:"createdAt"`
}

// NewProxy returns one that was never enabled.
func NewProxy() *Proxy {
	now := time.Now().UTC().Truncate(time.Second)
	return &Proxy{GUID: newGUID(), WhenCreated: now, WhenChanged: now}
}

// Valid reports whether it is for an organization, with an address that can be one and
// has no password in it.
func (p *Proxy) Valid() bool {
	u, err := url.Parse(p.URI)
	return p.Organization != "" && err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && isPort(u.Port())
}

func isPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// Proxy reads the settings that are kept. None is ErrNoProxy.
func (d Directory) Proxy() (*Proxy, error) {
	p := &Proxy{}
	there, err := d.load(proxyFile, p)
	if err == nil && !there {
		err = ErrNoProxy
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// ChangeProxy keeps next, as of now, unless it says what was says.
func (d Directory) ChangeProxy(was, next *Proxy) error {
	if *next == *was {
		return nil
	}
	next.WhenChanged = time.Now().UTC().Truncate(time.Second)
	return d.keep(proxyFile, next)
}

// newGUID returns a random identifier (RFC 9562, version 4).
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
