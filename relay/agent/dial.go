package agent

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// keepaliveTime is when an idle connection is pinged: within the minute
	// after which some NATs forget a connection, and not more often than the
	// relay allows (relay/ingest, 10 s). A peer that died is noticed
	// keepaliveTimeout later, or that long after something was sent to it.
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second

	// window is how much the relay may send ahead, on a stream and on the
	// connection. A fixed one keeps gRPC from probing the bandwidth with a PING
	// after each settlement, which the relay has to read and to answer.
	window = 512 << 10

	// maxReceive bounds a message from the relay: a settlement of many batches
	// with details.
	maxReceive = 16 << 20
)

// dial returns a connection that connects when it is used.
func (c *Config) dial(address string, tokens *tokens) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if !c.Plaintext {
		config := c.TLS
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		transport = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(tokens),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("badgerelay-agent"),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: c.backoffMin(), Multiplier: 2, Jitter: 0.2, MaxDelay: c.backoffMax()},
			MinConnectTimeout: c.openTimeout(),
		}),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceive)),
	}
	return grpc.NewClient(address, append(options, c.DialOptions...)...)
}
