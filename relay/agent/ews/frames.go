package ews

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxEnvelope bounds one SOAP envelope, in bytes. Ours: a notification has at
	// most 50 events of some 500 bytes, and one envelope holds those of at most
	// 200 subscriptions.
	maxEnvelope = 8 << 20
	// maxPrologue bounds what may stand before an envelope: an XML declaration.
	maxPrologue = 4 << 10
	// maxName bounds the name of an element that may be an envelope.
	maxName = 256
)

// frames cuts what a server streams into SOAP envelopes: it is a sequence of
// whole documents, with or without a declaration before each, and the bytes
// arrive cut anywhere. What is no envelope, such as a proxy's page, is skipped.
type frames struct {
	r     io.Reader
	most  int    // bytes of an envelope
	buf   []byte // what has been read and not been handed out
	pos   int    // before it, buf has been looked at
	name  string // of the envelope that buf begins with; empty: outside of one
	chunk []byte
	junk  bool // something was skipped since the last call of skipped
}

func newFrames(r io.Reader, most int) *frames {
	return &frames{r: r, most: most, chunk: make([]byte, 16<<10)}
}

// next returns the next envelope, which is valid until the next call. Its error
// is the reader's; io.ErrUnexpectedEOF where the stream ends within an envelope.
func (f *frames) next() ([]byte, error) {
	for {
		if envelope := f.cut(); envelope != nil {
			return envelope, nil
		}
		n, err := f.r.Read(f.chunk)
		f.buf = append(f.buf, f.chunk[:n]...)
		if n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) && f.name != "" {
			return nil, fmt.Errorf("envelope cut off: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			f.skip(len(f.buf))
			return nil, err
		}
	}
}

// skipped says whether something that is no envelope was skipped since it was
// asked last.
func (f *frames) skipped() bool {
	junk := f.junk
	f.junk = false
	return junk
}

// cut looks at what has been read; nil: it needs more.
func (f *frames) cut() []byte {
	for {
		at := bytes.IndexByte(f.buf[f.pos:], '<')
		if at < 0 {
			f.pos = len(f.buf)
			f.bound()
			return nil
		}
		at += f.pos
		name, whole := tagName(f.buf[at+1:])
		switch {
		case !whole:
			f.pos = at
			f.bound()
			return nil
		case isEnvelope(name): // envelopes don't nest: one that was open was cut off
			if at > 0 {
				f.skip(at)
			}
			f.pos, f.name = 1, name
			continue
		case f.name != "" && name == "/"+f.name:
			end, whole := tagEnd(f.buf[at+1+len(name):])
			if !whole {
				f.pos = at
				f.bound()
				return nil
			}
			if end == 0 {
				break // nobody writes a tag like that
			}
			end += at + 1 + len(name)
			if end > f.most {
				f.skip(end)
				continue
			}
			envelope := f.buf[:end]
			f.buf, f.pos, f.name = f.buf[end:], 0, ""
			return envelope
		}
		f.pos = at + 1
	}
}

// skip drops the first n bytes.
func (f *frames) skip(n int) {
	if f.name != "" || !prologue(f.buf[:n]) {
		f.junk = true
	}
	f.buf, f.pos, f.name = f.buf[:copy(f.buf, f.buf[n:])], 0, ""
}

// bound drops what has become too large.
func (f *frames) bound() {
	most := maxPrologue
	if f.name != "" {
		most = f.most
	}
	if f.pos > most {
		f.skip(f.pos)
	}
}

// tagName returns what stands between < and the end of the name; whole is false
// where that end has not been read.
func tagName(after []byte) (name string, whole bool) {
	end := bytes.IndexAny(after[:min(len(after), maxName)], " \t\r\n/><")
	if end == 0 && after[0] == '/' {
		end = bytes.IndexAny(after[1:min(len(after), maxName)], " \t\r\n/><")
		if end >= 0 {
			end++
		}
	}
	if end < 0 {
		return "", len(after) >= maxName
	}
	return string(after[:end]), true
}

// tagEnd returns where the tag ends whose name stands before; 0: nowhere. whole is
// false where that has not been read.
func tagEnd(after []byte) (end int, whole bool) {
	rest := bytes.TrimLeft(after[:min(len(after), maxName)], " \t\r\n")
	switch {
	case len(rest) > 0 && rest[0] == '>':
		return min(len(after), maxName) - len(rest) + 1, true
	case len(rest) == 0 && len(after) < maxName:
		return 0, false
	}
	return 0, true
}

func isEnvelope(name string) bool {
	if _, local, prefixed := strings.Cut(name, ":"); prefixed && name[0] != '/' {
		name = local
	}
	return name == "Envelope"
}

// prologue says whether b is what may stand between envelopes: white space, a
// byte order mark, XML declarations.
func prologue(b []byte) bool {
	for {
		b = bytes.TrimPrefix(bytes.TrimSpace(b), []byte("\xef\xbb\xbf"))
		if len(b) == 0 {
			return true
		}
		if !bytes.HasPrefix(b, []byte("<?")) {
			return false
		}
		end := bytes.Index(b, []byte("?>"))
		if end < 0 {
			return false
		}
		b = b[end+2:]
	}
}
