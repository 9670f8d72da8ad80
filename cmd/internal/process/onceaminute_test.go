package process

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o OnceAMinute
		if !o.Due() || o.Due() {
			t.Error("not due exactly once at the start")
		}
		time.Sleep(time.Minute - time.Millisecond)
		if o.Due() {
			t.Error("due before the minute is over")
		}
		time.Sleep(time.Millisecond)
		if !o.Due() || o.Due() {
			t.Error("not due exactly once after a minute")
		}
	})
}
