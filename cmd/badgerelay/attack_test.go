package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "badgerelay/proto/badgerelay/v1"
)

// dialer connects from where attackers are.
func (v *victim) dialer() *net.Dialer { return &net.Dialer{LocalAddr: v.from} }

// raw connects as HTTP/2 does; nil: the relay does not let it.
func (v *victim) raw(ctx context.Context) (*tls.Conn, *http2.Framer) {
	nc, err := (&tls.Dialer{Config: v.trust, NetDialer: v.dialer()}).DialContext(ctx, "tcp", v.address)
	if err != nil {
		return nil, nil
	}
	context.AfterFunc(ctx, func() { _ = nc.Close() }) // the attack is over
	framer := http2.NewFramer(nc, nc)
	framer.AllowIllegalWrites = true
	_, _ = io.WriteString(nc, http2.ClientPreface) // what follows fails as well
	_ = framer.WriteSettings()
	return nc.(*tls.Conn), framer
}

// answerPings is all that an idle client does, until its connection ends: the relay
// closes one that answers none for half a minute.
func answerPings(f *http2.Framer) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := frame.(*http2.PingFrame); ok && !ping.IsAck() && f.WritePing(true, ping.Data) != nil {
			return
		}
	}
}

// request encodes the header block of a Publish.
func (v *victim) request(more ...string) []byte {
	return header(pb.RelayService_Publish_FullMethodName, append([]string{"authorization", "Bearer " + v.token}, more...)...)
}

// header encodes the header block of a call.
func header(method string, more ...string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	fields := append([]string{":method", "POST", ":scheme", "https", ":path", method, ":authority", "localhost",
		"content-type", "application/grpc", "te", "trailers"}, more...)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true}) // into memory
	}
	return block.Bytes()
}

func rapidReset(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with the connection
		block := v.request()
		const resets = 4 // of each call: on a slow machine one alone would stay below the rate
		for id := uint32(1); ; id += 2 {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
			for range resets {
				err = errors.Join(err, f.WriteRSTStream(id, http2.ErrCodeCancel))
			}
			if err != nil {
				break
			}
			v.hits.Add(1)
		}
	}
}

// writeForever repeats a frame on connection after connection.
func writeForever(frame func(*http2.Framer) error) func(context.Context, *victim) {
	return func(ctx context.Context, v *victim) {
		for ctx.Err() == nil {
			nc, f := v.raw(ctx)
			for nc != nil && frame(f) == nil {
				v.hits.Add(1)
			}
		}
	}
}

func endlessMetadata(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: v.request()}) // what follows fails as well
		for f.WriteContinuation(1, false, v.request("x", strings.Repeat("y", 8000))) == nil {
			v.hits.Add(1)
		}
	}
}

// giantMetadata is a megabyte, well-formed and to its end. It takes frames: a
// client of gRPC refuses by itself to send so much.
func giantMetadata(ctx context.Context, v *victim) {
	block := v.request("x", strings.Repeat("~", 1<<20))
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10]})
		for rest := block[16<<10:]; err == nil && len(rest) > 0; rest = rest[min(len(rest), 16<<10):] {
			n := min(len(rest), 16<<10)
			err = f.WriteContinuation(1, n == len(rest), rest[:n])
		}
		v.refused(ctx, f)
		_ = nc.Close() // the attack is over
	}
}

// hpackBombs put a field of three kilobytes into the table, and say it ten
// thousand times in a byte each.
func hpackBombs(ctx context.Context, v *victim) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for range 10_000 {
		_ = encoder.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("~", 3000)}) // into memory
	}
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}) // the end shows when reading
		v.refused(ctx, f)
		_ = nc.Close() // the attack is over
	}
}

// refused reads until the relay has ended stream 1 or the connection, and
// counts that.
func (v *victim) refused(ctx context.Context, f *http2.Framer) {
	for {
		frame, err := f.ReadFrame()
		if err != nil && ctx.Err() == nil {
			v.hits.Add(1)
		}
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				v.hits.Add(1)
				return
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			v.hits.Add(1)
			return
		}
	}
}

func silentConnections(ctx context.Context, v *victim) {
	for range 1000 {
		nc, err := v.dialer().DialContext(ctx, "tcp", v.address)
		if err != nil {
			continue
		}
		v.hits.Add(1)
		defer nc.Close()
	}
	<-ctx.Done()
}

func badHandshakes(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, err := v.dialer().DialContext(ctx, "tcp", v.address)
		if err != nil {
			continue
		}
		_, _ = nc.Write([]byte("GET / HTTP/1.1\r\n\r\n")) // the answer says it all
		_, _ = io.Copy(io.Discard, nc)
		v.hits.Add(1)
		_ = nc.Close()
	}
}

// badPrefaces finish TLS, and then speak what is not HTTP/2.
func badPrefaces(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, err := (&tls.Dialer{Config: v.trust, NetDialer: v.dialer()}).DialContext(ctx, "tcp", v.address)
		if err != nil {
			continue
		}
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n") // the answer says it all
		_, _ = io.Copy(io.Discard, nc)
		v.hits.Add(1)
		_ = nc.Close() // the attack is over
	}
}

// slowWriters begin more calls than they may, each with a message that is to be
// long, and say a byte of it now and then.
func slowWriters(ctx context.Context, v *victim) {
	nc, f := v.raw(ctx)
	if nc == nil {
		return
	}
	go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with the connection
	block, prefix := v.request(), binary.BigEndian.AppendUint32([]byte{0}, 1<<20)
	for i := range uint32(300) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true}) // at worst it is slower
		_ = f.WriteData(2*i+1, false, prefix)
	}
	for i := uint32(0); f.WriteData(2*(i%250)+1, false, []byte{0}) == nil; i++ {
		v.hits.Add(1)
		runtime.Gosched()
	}
}

// slowReaders ask for what anybody may, and never take an answer: their windows
// are closed.
func slowReaders(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		nc, f := v.raw(ctx)
		if nc == nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, nc) }()                                 // ends with the connection
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // what follows fails as well
		block := header(grpc_health_v1.Health_Check_FullMethodName)
		for id := uint32(1); ; id += 2 {
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}) != nil ||
				f.WriteData(id, true, make([]byte, 5)) != nil {
				break
			}
			v.hits.Add(1)
		}
	}
}

// called makes a call that is to be refused with a code, and counts that.
func (v *victim) called(ctx context.Context, request *pb.PublishRequest, want codes.Code) {
	_, err := pb.NewRelayServiceClient(v.conn).Publish(ctx, request)
	switch status.Code(err) {
	case codes.OK:
		v.t.Errorf("a call was taken that is to be refused as %v", want)
	case want:
		v.hits.Add(1)
	default: // the attack is over, or the relay was busy
	}
}

func giantMessages(ctx context.Context, v *victim) {
	call := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+v.token)
	events := []*pb.Event{{Mailbox: strings.Repeat("x", 8<<20)}}
	for ctx.Err() == nil {
		v.called(call, &pb.PublishRequest{AgentId: "attacker", Events: events}, codes.ResourceExhausted)
	}
}

// gzipBomb is a message as gRPC frames it, made once: a hundred times the same
// member, because an attack lasts no longer than packing a hundred megabytes.
var gzipBomb = sync.OnceValue(func() []byte {
	var member bytes.Buffer
	w := gzip.NewWriter(&member)
	_, _ = w.Write(make([]byte, 1<<20)) // into memory
	_ = w.Close()
	small := bytes.Repeat(member.Bytes(), 100)
	return append([]byte{1, 0, byte(len(small) >> 16), byte(len(small) >> 8), byte(len(small))}, small...)
})

// packed sends a message that says it is packed with gzip.
func packed(message func() []byte) func(context.Context, *victim) {
	return func(ctx context.Context, v *victim) {
		block := v.request("grpc-encoding", "gzip")
		for ctx.Err() == nil {
			nc, f := v.raw(ctx)
			if nc == nil {
				continue
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}) // what follows fails as well
			for rest := message(); len(rest) > 0; rest = rest[min(len(rest), 16<<10):] {
				n := min(len(rest), 16<<10)
				_ = f.WriteData(1, n == len(rest), rest[:n])
			}
			v.refused(ctx, f)
			_ = nc.Close()
		}
	}
}

// unknownMethods ask for what is not served, without a token.
func unknownMethods(ctx context.Context, v *victim) {
	for ctx.Err() == nil {
		if status.Code(v.conn.Invoke(ctx, "/wordpress.Login/Try", &pb.PublishRequest{}, &pb.PublishResponse{})) == codes.Unimplemented {
			v.hits.Add(1)
		}
	}
}

// tokenFlood calls with a token whose signature is wrong.
func tokenFlood(ctx context.Context, v *victim) {
	forged := v.token[:len(v.token)-8] + "AAAAAAAA"
	call := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+forged)
	for ctx.Err() == nil {
		v.called(call, &pb.PublishRequest{}, codes.Unauthenticated)
	}
}
