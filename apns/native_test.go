package apns_test

import (
	"testing"
	"testing/synctest"

	"badgerelay/apns"
)

func TestNativeSmoke(t *testing.T) {
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(1000))
			c.serveOK()
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 500)
		synctest.Wait()
		if got := f.accepted(); got != 500 {
			t.Errorf("%d of 500 pushes accepted; stats %+v", got, f.pool.Stats())
		}
	})
}
