package ingest

// meter weighs what a peer sends by the headers of its frames, wherever they are
// cut: before gRPC has decoded, allocated or answered anything. It is the only
// place that looks at what comes in below gRPC. Its zero value is at the
// beginning of a connection. It belongs to whoever reads.
type meter struct {
	read  frames
	begun bool // the preface has come: the magic, and the header of the first frame
	magic int  // bytes of the magic that have come
}

// magicSize is that of the words that a client says first. RFC 9113, section 3.4.
const magicSize = 24

// messagePrefix is what each message of gRPC begins with. Source: gRPC over HTTP2
// (grpc/doc/PROTOCOL-HTTP2.md, read 2026-11), Length-Prefixed-Message.
const messagePrefix = 5

// weight is what some frames ask of the relay.
type weight struct {
	work     int // microseconds of a core, about
	odd      int // points of frames that a client has few of
	settings int // SETTINGS frames
}

// What frames weigh. Measured on a relay without work of its own, and rounded up:
// a call that is reset at once or refused costs 10 to 50 µs, the second with a
// signature to be checked; decoding a kilobyte of HPACK, 10 to 20; any frame, 1.
const (
	workFrame  = 2
	workCall   = 50
	workFields = 20 // a kilobyte of a header block
	workSets   = 20 // a kilobyte of SETTINGS, which have 36 bytes at most where each is said once
	workBytes  = 1  // a kilobyte of anything else: TLS
	// Clients that read little at a time send two WINDOW_UPDATEs for each
	// message; of the other frames that count here, none send many.
	oddWindow = 1
	oddFrame  = 20
)

// follow walks over what has come, and returns what it weighs.
func (m *meter) follow(p []byte) (w weight) {
	if m.magic < magicSize {
		n := min(magicSize-m.magic, len(p))
		m.magic += n
		p = p[n:]
	}
	for left, found := m.read.next(p); found; left, found = m.read.next(left) {
		m.weigh(&w)
		m.read.pass()
	}
	return w
}

// weigh adds the frame whose header is whole.
func (m *meter) weigh(w *weight) {
	size, kind, flags := m.read.header()
	m.begun = true
	w.work += workFrame
	switch kind {
	case frameHeaders:
		w.work += workCall + size*workFields/1024
	case frameContinuation:
		w.work += size * workFields / 1024
		w.odd += oddFrame // a block of more than 16 KB, or one that was cut for no reason
	case frameData:
		w.work += size * workBytes / 1024
		if size < messagePrefix && flags&flagEndStream == 0 {
			w.odd += oddFrame // not even the beginning of a message
		}
	case frameWindowUpdate:
		w.odd += oddWindow
	case frameSettings:
		if flags&flagACK == 0 {
			w.settings++
		}
		w.work += size * workSets / 1024
		w.odd += oddFrame + size*workSets/1024
	case framePing: // gRPC ends a connection that has more than one for each answer: refusedPings
	default: // RST_STREAM, PRIORITY, PUSH_PROMISE, GOAWAY, and types that gRPC does not know
		w.work += size * workBytes / 1024
		w.odd += oddFrame
	}
}
