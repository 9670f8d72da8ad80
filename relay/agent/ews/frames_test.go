package ews

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// all returns every envelope that r holds, and whether something was skipped.
func allFrames(t *testing.T, r io.Reader, most int) (envelopes []string, junk bool) {
	t.Helper()
	f := newFrames(r, most)
	for {
		text, err := f.next()
		if err != nil {
			return envelopes, f.skipped() || junk
		}
		junk = f.skipped() || junk
		envelopes = append(envelopes, string(text))
	}
}

func TestFramesCutAStream(t *testing.T) {
	const a, b = `<Envelope xmlns="x"><Body>1</Body></Envelope>`, `<s:Envelope xmlns:s="x"><s:Body a=">">2</s:Body></s:Envelope >`
	const declaration, page = "\xef\xbb\xbf<?xml version=\"1.0\"?>\r\n", "<!DOCTYPE html><html><body>502 <b>Bad</b> Gateway<br></html>"
	for name, c := range map[string]struct {
		text string
		want []string
		junk bool
	}{
		"one behind the other":          {a + b + a, []string{a, b, a}, false},
		"with declarations":             {declaration + a + declaration + "\r\n" + b, []string{a, b}, false},
		"a proxy's page between":        {a + page + b, []string{a, b}, true},
		"a page alone":                  {page, nil, true},
		"a page in the midst of one":    {a[:20] + page + b, []string{b}, true},
		"one cut off, and a new one":    {a[:30] + a, []string{a}, true},
		"cut off at the end":            {a + b[:20], []string{a}, false},
		"other elements of that ending": {`<Envelopes>` + a, []string{a}, true},
		"an end without a beginning":    {`</Envelope>` + a, []string{a}, true},
		"nothing but white space":       {" \r\n ", nil, false},
		"too large is left out":         {"<Envelope>" + strings.Repeat("x", 200) + "</Envelope>" + a, []string{a}, true},
		"an end tag that never ends":    {"<Envelope></Envelope" + strings.Repeat(" ", 1000) + a, []string{a}, true},
		"a name that never ends":        {"<" + strings.Repeat("x", 10000) + a, []string{a}, true},
		"an empty one is left out":      {"<Envelope/>" + a, []string{a}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for cut, r := range map[string]io.Reader{
				"whole": strings.NewReader(c.text), "by bytes": iotest.OneByteReader(strings.NewReader(c.text)), "by halves": iotest.HalfReader(strings.NewReader(c.text)),
			} {
				got, junk := allFrames(t, r, 100)
				if !slices.Equal(got, c.want) || junk != c.junk {
					t.Errorf("%s: %q, skipped something %v; want %q, %v", cut, got, junk, c.want, c.junk)
				}
			}
		})
	}
}

// However a stream is cut, its envelopes are the same, and what is kept of it is
// bounded.
func FuzzEnvelopes(f *testing.F) {
	f.Add([]byte(`<?xml version="1.0"?><s:Envelope><s:Body><m:x ResponseClass="Error"/></s:Body></s:Envelope><html><Envelope>y</Envelope>`), uint8(3))
	f.Add([]byte(`<Envelope><Envelope></Envelope></Envelope>`), uint8(1))
	f.Add([]byte("<"+strings.Repeat("x", 300)+"<Envelope>"+strings.Repeat("<a>", 200)+"</Envelope   "), uint8(255))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		const most = 512
		whole, junk := allFrames(t, bytes.NewReader(text), most)
		cutUp, alsoJunk := allFrames(t, &pieces{text, int(cut)%7 + 1}, most)
		if len(text) <= most && (!slices.Equal(whole, cutUp) || junk != alsoJunk) {
			t.Fatalf("whole: %q, %v; in pieces: %q, %v", whole, junk, cutUp, alsoJunk)
		}
	})
}

// pieces is a reader of a few bytes at a time, that watches what is kept.
type pieces struct {
	text []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.text[:min(p.n, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

// What is kept of a stream is bounded, whatever it holds.
func FuzzEnvelopesAreBounded(f *testing.F) {
	f.Add([]byte("<Envelope>"), []byte("<a"), uint16(900))
	f.Add([]byte("<Envelope></Envelope"), []byte(" "), uint16(9000))
	f.Add([]byte(""), []byte("x"), uint16(9000))
	f.Fuzz(func(t *testing.T, begin, again []byte, times uint16) {
		const most = 512
		r := newFrames(io.MultiReader(bytes.NewReader(begin), bytes.NewReader(bytes.Repeat(again, min(int(times), 100_000/(len(again)+1))))), most)
		r.chunk = r.chunk[:64]
		for {
			text, err := r.next()
			if len(r.buf) > max(most, maxPrologue)+2*maxName+len(r.chunk) {
				t.Fatalf("%d bytes are kept", len(r.buf))
			}
			if err != nil {
				return
			}
			_, _ = parse(text) // it must not panic
		}
	})
}
