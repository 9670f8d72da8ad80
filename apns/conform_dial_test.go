package apns_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// tunnel is an HTTP proxy in memory that leads to a simulator.
func tunnel(t *testing.T, sim *apnstest.Simulator, want string, status int) func(context.Context, string, string) (net.Conn, error) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "proxy.example:3128" {
			return nil, fmt.Errorf("dialed %s", addr)
		}
		client, server := net.Pipe()
		wg.Go(func() { // ends with the connection
			defer server.Close()
			r, err := http.ReadRequest(bufio.NewReader(server))
			if err != nil || r.Method != http.MethodConnect || r.Host != testServer || r.Header.Get("Proxy-Authorization") != want {
				t.Errorf("proxy got %+v, %v", r, err)
				return
			}
			fmt.Fprintf(server, "HTTP/1.1 %d X\r\n\r\n", status)
			if status != 200 {
				return
			}
			up, err := sim.Dial(ctx, network, addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer up.Close()
			wg.Go(func() {
				_, _ = io.Copy(up, server)
				_ = up.Close()
			})
			_, _ = io.Copy(server, up)
		})
		return client, nil
	}
}

// overTLS has the proxy reached with TLS, as an https proxy is.
func overTLS(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), host string) func(context.Context, string, string) (net.Conn, error) {
	cert, err := testAuthority().ServerCertificate(time.Now().AddDate(20, 0, 0), host)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		plain, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		client, server := net.Pipe()
		secure := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}})
		wg.Go(func() { // ends with the connection
			wg.Go(func() {
				_, _ = io.Copy(secure, plain)
				_ = secure.Close()
			})
			_, _ = io.Copy(plain, secure)
			_ = plain.Close()
			_ = server.Close()
		})
		return client, nil
	}
}

// TestConformProxyOverTLS has a proxy prove who it is before it gets a
// password.
func TestConformProxyOverTLS(t *testing.T) {
	testKeys()
	testAuthority()
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		for _, host := range []string{"proxy.example", "other.example"} {
			t.Run(string(engine)+" "+host, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var asked atomic.Bool
					sim := newSimulator(t, apnstest.Config{})
					dial := tunnel(t, sim, "Basic dTpw", 200)
					if host == "other.example" {
						dial = func(context.Context, string, string) (net.Conn, error) {
							client, server := net.Pipe()
							go func() { // ends with the connection
								n, _ := server.Read(make([]byte, 1))
								if n > 0 {
									asked.Store(true)
								}
								_ = server.Close()
							}()
							return client, nil
						}
					}
					f := startPool(t, apns.Config{Engine: engine, RootCAs: testAuthority().Pool(), Dial: overTLS(t, dial, host),
						Proxy: &url.URL{Scheme: "https", Host: "proxy.example:3128", User: url.UserPassword("u", "p")}})
					f.put(0, 10)
					settle()
					if host == "proxy.example" && f.accepted() != 10 {
						t.Errorf("%d of 10 accepted; %+v", f.accepted(), f.pool.Stats())
					}
					if host != "proxy.example" && (f.accepted() != 0 || asked.Load() || f.pool.Stats().LastError == nil) {
						t.Errorf("with another host's certificate: asked %t, stats %+v", asked.Load(), f.pool.Stats())
					}
					f.stop()
				})
			})
		}
	}
}

func TestConformProxy(t *testing.T) {
	testKeys()
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		for _, status := range []int{200, 407} {
			t.Run(fmt.Sprint(engine, status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sim := newSimulator(t, apnstest.Config{})
					f := startPool(t, apns.Config{Engine: engine, RootCAs: testAuthority().Pool(),
						Dial:  tunnel(t, sim, "Basic dTpw", status),
						Proxy: &url.URL{Scheme: "http", Host: "proxy.example:3128", User: url.UserPassword("u", "p")}})
					f.put(0, 10)
					settle()
					if status == 200 && f.accepted() != 10 {
						t.Errorf("%d of 10 accepted; %+v", f.accepted(), f.pool.Stats())
					}
					if status != 200 && (f.accepted() != 0 || f.pool.Stats().LastError == nil) {
						t.Errorf("stats %+v", f.pool.Stats())
					}
				})
			})
		}
	}
}

func TestConformSpreadsOverAddresses(t *testing.T) {
	testKeys()
	testAuthority()
	var mu sync.Mutex // guards what follows
	dialed := make(map[string]int)
	lookups := 0
	for _, engine := range []apns.Engine{apns.EngineNative, apns.EngineReference} {
		t.Run(string(engine), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clear(dialed)
				lookups = 0
				sim := newSimulator(t, apnstest.Config{StreamLimit: 1, Faults: apnstest.Faults{Latency: apnstest.Latency{Min: 200 * time.Millisecond}}})
				f := startPool(t, apns.Config{Engine: engine, MaxConns: 4, RootCAs: testAuthority().Pool(),
					Lookup: func(context.Context, string) ([]netip.Addr, error) {
						mu.Lock()
						defer mu.Unlock()
						lookups++
						var addrs []netip.Addr
						for i := range 4 {
							addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
						}
						return addrs, nil
					},
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						mu.Lock()
						dialed[addr]++
						mu.Unlock()
						return sim.Dial(ctx, network, addr)
					}})
				f.put(0, 200)
				time.Sleep(time.Minute)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if len(dialed) != 4 || lookups != 4 || f.accepted() != 200 {
					t.Errorf("dialed %v after %d look-ups; %d accepted", dialed, lookups, f.accepted())
				}
			})
		})
	}
}
