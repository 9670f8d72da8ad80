package apns

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// TestHeaderEncoder lets hpack's decoder judge what the encoder writes while
// tokens, hours and table sizes change at random.
func TestHeaderEncoder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		e := newHeaderEncoder("push.example", "com.example.mail")
		d := hpack.NewDecoder(defaultHPACKTable, nil)
		token, hour := "", ""
		var device DeviceToken
		for n := range 200 {
			switch rng.IntN(20) {
			case 0:
				token = "bearer " + strconv.Itoa(rng.Int())
				e.set(fieldAuthorization, token)
			case 1:
				hour = strconv.Itoa(rng.IntN(1000))
				e.set(fieldExpiration, hour)
			case 2:
				size := uint32(rng.IntN(1000) * rng.IntN(8))
				d.SetAllowedMaxDynamicTableSize(min(size, defaultHPACKTable))
				e.setMaxTableSize(size)
			}
			device, _ = DeviceTokenFromBytes([]byte(strconv.Itoa(1e9+n) + "0123456789012345678901234567890")[:32])
			priority, want := PriorityImmediate, "10"
			if rng.IntN(2) == 0 {
				priority, want = PriorityPower, "5"
			}
			fields, err := d.DecodeFull(e.appendBlock(nil, device, priority))
			if err != nil {
				t.Fatalf("round %d, block %d: %v", round, n, err)
			}
			got := make(map[string]string)
			size := 0
			for _, f := range fields {
				got[f.Name] = f.Value
				size += int(f.Size())
			}
			if size > e.listSize() {
				t.Fatalf("header list of %d bytes, promised at most %d", size, e.listSize())
			}
			for name, value := range map[string]string{
				":method": "POST", ":scheme": "https", ":authority": "push.example", ":path": "/3/device/" + device.Hex(),
				"authorization": token, "apns-topic": "com.example.mail", "apns-push-type": "alert",
				"apns-expiration": hour, "apns-priority": want,
			} {
				if got[name] != value {
					t.Fatalf("round %d, block %d: %s is %q, want %q", round, n, name, got[name], value)
				}
			}
		}
	}
}

func BenchmarkHeaderBlock(b *testing.B) {
	e := newHeaderEncoder("push.example", "com.example.mail")
	e.set(fieldAuthorization, "bearer x")
	device, err := DeviceTokenFromBytes(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.appendBlock(buf[:0], device, PriorityImmediate)
	}
	b.ReportMetric(float64(len(buf)), "bytes/block")
}
