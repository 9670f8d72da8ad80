package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"badgerelay/apns/apnstest"
	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/cmd/badgerelay/internal/config"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent"
)

// enrol does what an operator does by hand: organization, credential,
// subscriptions.
func (d *demo) enrol(ctx context.Context) error {
	conn, err := grpc.NewClient("unix:"+d.config.Admin.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close() // the answers are there already
	admin := pb.NewAdminServiceClient(conn)
	if _, err := admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: organization}); err != nil {
		return err
	}
	if _, err := admin.AddCredential(ctx, &pb.AddCredentialRequest{Organization: organization, Certificate: d.keys.signer.Certificate.Raw}); err != nil {
		return err
	}
	stream, err := admin.ImportSubscriptions(ctx)
	if err != nil {
		return err
	}
	var subscriptions []*pb.Subscription
	for _, device := range d.boxes.devices {
		for _, mailbox := range device.mailboxes { // an import takes a device off no mailbox that it puts it on
			subscriptions = append(subscriptions, &pb.Subscription{Mailbox: mailbox, App: appName, DeviceToken: device.token.Hex()})
		}
	}
	request := &pb.AdminServiceImportSubscriptionsRequest{Organization: organization, Import: &pb.ImportSubscriptionsRequest{Subscriptions: subscriptions}}
	if err := stream.Send(request); err != nil {
		return err
	}
	answer, err := stream.CloseAndRecv()
	if err == nil && answer.GetImport().GetCreated() != uint64(len(subscriptions)) {
		err = fmt.Errorf("%d of %d devices were subscribed", answer.GetImport().GetCreated(), len(subscriptions))
	}
	return err
}

// newAgent makes the organization's agent with its built-in token issuer.
func (d *demo) newAgent() error {
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: d.keys.signer.Private, Certificate: d.keys.signer.Certificate, Realm: organization,
		TargetPrincipal: d.config.Principal(), Authority: authority,
	})
	if err != nil {
		return fmt.Errorf("make the token issuer: %w", err)
	}
	_, port, err := net.SplitHostPort(d.relays.now().Agents)
	if err != nil {
		return err
	}
	d.agent, err = agent.New(agent.Config{
		Addresses: []string{net.JoinHostPort(authority, port)},
		TLS:       &tls.Config{RootCAs: d.keys.relay.Pool(), MinVersion: tls.VersionTLS12},
		Token:     issuer, AgentID: "demo", Name: "demo", Product: "Exchange", ProductVersion: "15.0.775.38",
		BackoffMin: agentBackoff, BackoffMax: 4 * agentBackoff,
	})
	return err
}

// keys are everything secret and everything trusted, made for one run.
type keys struct {
	apple     *apnstest.Authority
	appleFile string
	provider  *ecdsa.PublicKey // of the .p8 key
	keyFile   string
	relay     *authtest.Server // of the agents' listener
	relayTLS  config.TLS

	signer *authtest.Key // signs the organization's tokens
}

// authority is the name by which the agent reaches the relay.
const authority = "localhost"

func makeKeys(dir string) (k *keys, err error) {
	k = &keys{
		appleFile: filepath.Join(dir, "apple.crt"), keyFile: filepath.Join(dir, "provider.p8"),
		relay:    authtest.NewServer("relay", time.Now().AddDate(1, 0, 0), authority, "127.0.0.1"),
		relayTLS: config.TLS{CertificateFile: filepath.Join(dir, "relay.crt"), KeyFile: filepath.Join(dir, "relay.key")},
		signer:   authtest.NewKey("Exchange S2S OAuth", time.Now()),
	}
	if k.apple, err = apnstest.NewAuthority(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(k.appleFile, k.apple.PEM(), 0o600); err != nil {
		return nil, err
	}
	if k.provider, err = apnstest.WriteSigningKey(k.keyFile); err != nil {
		return nil, err
	}
	return k, k.relay.Write(k.relayTLS.CertificateFile, k.relayTLS.KeyFile)
}
