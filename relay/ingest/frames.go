package ingest

// Types, flags and error codes of frames. RFC 9113, sections 6 and 7.
const (
	frameHeader = 9 // bytes; section 4.1

	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
	flagACK           = 0x1 // of SETTINGS and PING
	flagEndStream     = 0x1 // of DATA and HEADERS

	codeNone          = 0x0
	codeProtocol      = 0x1
	codeFlowControl   = 0x3
	codeStreamClosed  = 0x5
	codeFrameSize     = 0x6
	codeRefusedStream = 0x7
	codeCancel        = 0x8
	codeCalm          = 0xb
)

const (
	// goAwayTold is how much of a frame's payload is looked at: of a GOAWAY the
	// last stream, the error code, and the word that gRPC has for an idle
	// connection. RFC 9113, section 6.8.
	goAwayTold = 4 + 4 + len(idleWord)
	idleWord   = "max_idle"
)

// frames finds the frames of HTTP/2 in what goes over a connection in one direction,
// wherever that is cut. Its zero value is between two frames.
type frames struct {
	head [frameHeader + goAwayTold]byte // a frame's header, and the beginning of its payload
	have int                            // bytes of head
	want int                            // bytes of head that are to come before the frame is looked at; 0: frameHeader
	skip int                            // bytes of payload that are to come, and that nobody looks at
}

// next walks over p to where a frame can be looked at, and returns what is left of p;
// false: p ends before. Who has looked at the frame calls pass or more.
func (f *frames) next(p []byte) (left []byte, found bool) {
	if f.skip >= len(p) {
		f.skip -= len(p)
		return nil, false
	}
	p, f.skip = p[f.skip:], 0
	want := max(f.want, frameHeader)
	n := copy(f.head[f.have:want], p)
	f.have += n
	return p[n:], f.have == want
}

// header returns what a frame's header says: the size of its payload, its type and its flags.
func (f *frames) header() (size int, kind, flags byte) {
	return int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2]), f.head[3], f.head[4]
}

// payload returns as much of the payload as has been asked for with more.
func (f *frames) payload() []byte { return f.head[frameHeader:f.have] }

// more asks for the beginning of the payload: next finds the frame once more with it.
func (f *frames) more(n int) { f.want = frameHeader + min(n, goAwayTold) }

// pass goes on to the next frame.
func (f *frames) pass() {
	size, _, _ := f.header()
	f.have, f.want, f.skip = 0, 0, size+frameHeader-f.have
}

// between reports whether the last frame is over.
func (f *frames) between() bool { return f.have == 0 && f.skip == 0 }
