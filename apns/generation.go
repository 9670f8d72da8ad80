package apns

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"hash"
)

// Generation is a hash of what decides which devices APNs knows: address,
// environment, topic and credential. It is the same in every process with the
// same configuration, and never 0.
func (p *Pool) Generation() uint64 {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %v %q ", p.config.Addr, p.config.Environment, p.config.Topic) // a hash never fails
	p.cred.Load().identify(h)
	return max(1, binary.BigEndian.Uint64(h.Sum(nil)))
}

// identify writes what makes the credential this one.
func (c *Credential) identify(h hash.Hash) {
	if c.Certificate != nil {
		for _, der := range c.Certificate.Certificate {
			_, _ = h.Write(der)
		}
		return
	}
	t := &c.Token.config
	key, err := x509.MarshalPKIXPublicKey(&t.Key.PublicKey)
	if err != nil {
		panic(err) // NewTokenSource has seen the curve
	}
	_, _ = fmt.Fprintf(h, "%q %q %x", t.TeamID, t.KeyID, key)
}
