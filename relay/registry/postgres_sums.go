package registry

// sumChannel is where relays tell each other that a sum of a shared device is wanted
// or was accepted. It is a hint without content: they look once a second anyway.
const sumChannel = "badgerelay_sums"

// hintSums implements database.
func (p *postgresServer) hintSums() {
	p.sums.Store(true)
	select {
	case p.hint <- struct{}{}:
	default:
	}
}

// OnSumsChanged has fn called when a relay, this one included, hints that sums of
// shared devices are wanted or were accepted, while Run is running. There is one fn,
// which must be quick. One call may still be under way when cancel returns.
func (p *postgresServer) OnSumsChanged(fn func()) (cancel func()) {
	p.onSums.Store(&fn)
	return func() { p.onSums.Store(nil) }
}

func (p *postgresServer) sumsHeard() {
	if fn := p.onSums.Load(); fn != nil {
		(*fn)()
	}
}
