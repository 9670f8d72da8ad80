// Command apnssim is a simulator of Apple's push service with a wall of
// iPhones and iPads to look at.
//
// It speaks to a relay as APNs does, over TLS and HTTP/2, with Apple's rules
// and Apple's refusals, and puts each accepted badge on the mail icon of a
// simulated device. A page shows the devices live.
//
//	apnssim --generate-key ./sim --devices 12
//
// makes a signing key and a certificate authority in ./sim, starts with twelve
// devices, and prints where the page is and what to put into the relay's
// configuration:
//
//	page:  http://127.0.0.1:2198/
//	APNs:  127.0.0.1:2197
//	apps:
//	  - name: mail
//	    topic: com.example.mail
//	    ...
//
// Give it the same directory again, and it uses the same key and authority, so
// that relays go on trusting it. Devices
// that --devices makes have the same tokens each time, so that the relay's
// subscriptions stay good. What tokens they have, GET /api/devices on the
// management address tells; package console describes the rest of that
// interface: registering devices, scripting answers, injecting faults, reading
// the history.
//
// With a key of your own:
//
//	apnssim --team ABCDE12345 --key-id FGHIJ67890 --public-key key.p8 --ca-file ca.pem
//
// --public-key takes the public key in PEM or the .p8 that the relay signs with.
//
// Devices can be named one by one, the option repeated:
//
//	--device mailbox=box@example.org,name=iPad,model=iPad,token=<hex>
//
// It takes from a client what APNs takes, in unusual forms too: a token signed by
// openssl in DER, a client without ALPN. --strict refuses all but the standard
// forms. What a client does that Apple would hold against it is counted on the
// page and in GET /api/stats; --help explains each count.
//
// By default faults strike at a low rate, as at the real service: late answers,
// GOAWAY, resets, changed limits, 429, 503. --faults off turns them off,
// --seed repeats them. --rtt makes the simulator as far away as that. --fast leaves
// out what costs time, for benchmarks.
//
// apnssim exits with 0 after SIGINT or SIGTERM, 1 when it failed, 2 when it was
// called wrongly. A first signal says goodbye to the relay as APNs does
// (GOAWAY), a second one ends at once.
//
// It listens on loopback addresses only, refuses any other, keeps nothing
// on disk save what --generate-key and --ca-file name, and never reaches out
// to the network.
package main
