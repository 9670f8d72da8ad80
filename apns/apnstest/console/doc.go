// Package console is the management side of the APNs simulator: a small JSON
// interface over HTTP, and a page with a wall of simulated iPhones and iPads
// whose mail icon carries the badge that APNs would have put there, live.
//
//	GET    /                      the page
//	GET    /api/devices           every device; ?mailbox= and ?token= narrow it down
//	POST   /api/devices           register a device, or an array of up to 5,000
//	POST   /api/tokens            register devices of ?topic= by their tokens: text, up to 30,000 lines
//	POST   /api/badges            what the devices of such a list show: a number a line, in the same order
//	DELETE /api/devices/{token}   unregister: pushes to it are answered 410; ?at= says since when
//	GET    /api/events            server-sent events: hello, devices, synced, then what changes
//	POST   /api/script            the answers to the next pushes, of one device or of any
//	DELETE /api/script            forget those not used yet
//	POST   /api/strike            have a fault of connections, {"fault"}, strike all that are open
//	GET    /api/history           the pushes received; ?limit= the newest so many
//	DELETE /api/history           forget them
//	GET    /api/stats             pushes, client faults, connections
//	GET    /api/faults            what the simulator does wrong on purpose
//	PUT    /api/faults            change that
//	GET    /api/trust             the authority a client has to trust, PEM
//
// A refusal is a JSON object {"error":{"field","rule","message"}}: which field,
// which rule it broke, and the same in a sentence.
//
// The page draws with its own style sheet and script alone: the content
// security policy lets nothing else in, so that it works without a network.
//
// The package has no accounts and no passwords. It answers only requests that
// name a loopback host, and none that another site's page makes a browser
// send; whoever serves it has to listen on a loopback address. It keeps
// nothing: devices, history and scripts live in the simulator.
package console
