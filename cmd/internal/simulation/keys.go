package simulation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/auth/authtest"
)

// maxOrganizations is how many organizations a plan may have.
const maxOrganizations = 3

// keySet are the keys of every run, made once and outside of bubbles, because
// they cost more than a run.
type keySet struct {
	apns          *ecdsa.PrivateKey
	authority     *apnstest.Authority
	server        tls.Certificate
	organizations [maxOrganizations][2]*authtest.Key // the present one and the next
}

var keys = sync.OnceValue(func() *keySet {
	k := &keySet{apns: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), authority: must(apnstest.NewAuthority())}
	k.server = must(k.authority.ServerCertificate(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), apnsHost))
	for o := range k.organizations {
		for n := range k.organizations[o] {
			// A bubble's time begins in the year 2000.
			k.organizations[o][n] = authtest.NewKey(fmt.Sprintf("key%d-%d.example", o, n), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
		}
	}
	return k
})

// organizationName is the name of an organization by its number.
func organizationName(o int) string { return fmt.Sprintf("organization%d.example", o) }
