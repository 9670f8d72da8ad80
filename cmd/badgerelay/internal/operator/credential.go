package operator

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

func (t *Terminal) credential() *cobra.Command {
	c := &cobra.Command{
		Use: "credential", Aliases: []string{"cred"}, Short: "register the certificates whose keys sign an organization's tokens",
		Long: `A credential is the public part of the certificate that an organization's
mail servers sign their tokens with. Several may stand side by side, so that a
new one is registered before the old one ends; LAST USED in the list says when
the old one may go.`,
		Example: `  badgerelay credential add --organization fabrikam.com --certificate OAuthCert.cer
  badgerelay credential list --organization fabrikam.com
  badgerelay credential remove --organization fabrikam.com 7595DBDEA83DACB5757441D44899BCDB9911253C`,
	}
	c.AddCommand(t.credentialAdd(), t.credentialList(), t.credentialRemove())
	return c
}

// maxCertificate is the contract's bound, AddCredentialRequest.certificate.
const maxCertificate = 16 << 10

func (t *Terminal) credentialAdd() *cobra.Command {
	var organization, file, start, end string
	var force bool
	c := &cobra.Command{
		Use: "add [organization]", Short: "register a certificate",
		Long: `Registers a certificate: DER, PEM, base64 or a PKCS #7 file (.p7b) with one
certificate. One that has expired, or whose subject names another domain than the
organization's, is registered with --force only: most often it is the wrong file.
So is one whose --end is past.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			request, err := t.credentialRequest(organization, file, start, end, force)
			if err != nil {
				return err
			}
			request.ValidateOnly = t.DryRun
			r, err := admin.AddCredential(ctx, request)
			c := r.GetCredential()
			return t.Answer(c, err, fmt.Sprintf("register the certificate with thumbprint %s for %s", c.GetThumbprint(), organization), func() {
				t.showCredential(c)
				t.Say("The certificate is registered for %s.", organization)
				t.Say("Next: its administrator runs 'badgeagent auth-server set' with the address of your metadata document, and 'badgeagent proxy enable'.")
			})
		}),
	}
	c.Flags().StringVar(&file, "certificate", "", "the certificate's file, - for standard input (required)")
	c.Flags().BoolVar(&force, "force", false, "register it though it has expired, names another organization, or --end is past")
	c.Flags().StringVar(&start, "start", "", "from when it counts, RFC 3339 or a date (default: the certificate's beginning)")
	c.Flags().StringVar(&end, "end", "", "until when it counts (default: the certificate's end)")
	command.Require(c, "certificate")
	command.Files(c, "certificate")
	return t.organizationArgument(t.DryRunFlag(c), &organization)
}

// whichCertificate says what --certificate is.
const whichCertificate = "it is the file that 'badgeagent cert ensure' exports, which the organization's administrator sends you"

func (t *Terminal) credentialRequest(organization, file, start, end string, force bool) (*pb.AddCredentialRequest, error) {
	r, err := t.open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, command.Invalidf("%w: %s", err, whichCertificate)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close() // it was only read
	certificate, err := io.ReadAll(io.LimitReader(r, maxCertificate+1))
	if err != nil {
		return nil, command.Invalidf("--certificate: %w", err) // which names the file
	}
	if len(certificate) == 0 {
		return nil, command.Invalidf("--certificate: %s is empty", inputName(file))
	}
	if len(certificate) > maxCertificate {
		return nil, command.Invalidf("%s has more than 16 KiB; it is not a certificate", inputName(file))
	}
	parsed, err := certs.ReadFile(certificate)
	if err != nil && bytes.Contains(certificate, []byte("PRIVATE KEY-----")) {
		return nil, command.Invalidf("%s holds a private key, which nobody should have sent you; ask for the certificate, which 'badgeagent cert export' writes", inputName(file))
	}
	if errors.Is(err, certs.ErrKey) {
		return nil, command.Invalidf("%s is not a certificate that signs tokens: its %s; %s", inputName(file), strings.TrimPrefix(err.Error(), certs.ErrCertificate.Error()+": "), whichCertificate)
	}
	if err != nil {
		return nil, command.Invalidf("%s holds no certificate: %v", inputName(file), err)
	}
	for _, doubt := range doubts(parsed, organization, time.Now()) {
		if !force {
			return nil, command.Invalidf("%s: %s; check that it is the right file, and add --force to register it all the same", file, doubt)
		}
		t.Warn("%s", doubt)
	}
	if time.Now().Before(parsed.NotBefore) {
		t.Warn("the certificate begins on %s; until then tokens signed with its key are refused", command.Time(parsed.NotBefore))
	}
	startAt, err := command.ParseTime("--start", start)
	if err != nil {
		return nil, err
	}
	endAt, err := command.ParseTime("--end", end)
	if err != nil {
		return nil, err
	}
	if endAt.After(parsed.NotBefore) && endAt.After(startAt) && !endAt.After(time.Now()) { // what is in no order the relay refuses
		doubt := fmt.Sprintf("--end %s is past: tokens signed with the certificate's key are refused", command.Time(endAt))
		if !force {
			return nil, command.Usage("%s; add --force to register it all the same", doubt)
		}
		t.Warn("%s", doubt)
	}
	return &pb.AddCredentialRequest{Organization: organization, Certificate: parsed.Raw, StartAt: timestamp(startAt), EndAt: timestamp(endAt)}, nil
}

// doubts says what speaks against registering a certificate for organization.
func doubts(cert *x509.Certificate, organization string, now time.Time) (all []string) {
	if now.After(cert.NotAfter) {
		all = append(all, fmt.Sprintf("the certificate expired on %s", cert.NotAfter.UTC().Format(time.DateOnly)))
	}
	names := append([]string{cert.Subject.CommonName}, cert.DNSNames...)
	domains := slices.DeleteFunc(names, func(name string) bool { return !strings.Contains(name, ".") || strings.ContainsAny(name, " /@") })
	if len(domains) > 0 && !slices.ContainsFunc(domains, func(name string) bool { return related(name, organization) }) {
		all = append(all, fmt.Sprintf("the certificate names %s, not %s", strings.Join(slices.Compact(domains), ", "), organization))
	}
	return all
}

// related says whether a host's name and a domain are one, or one below the
// other.
func related(name, domain string) bool {
	name, domain = strings.ToLower(strings.TrimPrefix(name, "*.")), strings.ToLower(domain)
	return name == domain || strings.HasSuffix(name, "."+domain) || strings.HasSuffix(domain, "."+name)
}

// open opens a file, or standard input for "-".
func (t *Terminal) open(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(t.In), nil
	}
	info, err := os.Stat(file)
	switch {
	case err != nil: // said by Open
	case info.IsDir():
		return nil, command.Invalidf("%s is a directory; name a file in it", file)
	case info.Mode().IsRegular() && info.Size() == 0:
		return nil, command.Invalidf("%s is empty", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, command.Invalid(err)
	}
	return f, nil
}

// timestamp is nil where there is no time.
func timestamp(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}

func (t *Terminal) showCredential(c *pb.Credential) {
	t.List(
		command.Field{"ID", c.GetId()},
		command.Field{"Thumbprint", c.GetThumbprint()},
		command.Field{"Key SHA-256", c.GetKeySha256()},
		command.Field{"Subject", c.GetSubject()},
		command.Field{"Type", c.GetType()},
		command.Field{"Usage", c.GetUsage()},
		command.Field{"Start", when(c.GetStartAt())},
		command.Field{"End", when(c.GetEndAt())},
	)
}

func (t *Terminal) credentialList() *cobra.Command {
	var organization string
	c := &cobra.Command{
		Use: "list [organization]", Short: "list an organization's credentials, newest first",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: organization})
			return t.Answer(r, err, "", func() {
				var rows [][]string
				for _, c := range r.GetCredentials() {
					rows = append(rows, []string{c.GetId(), c.GetThumbprint(), when(c.GetStartAt()), when(c.GetEndAt()), when(c.GetLastUsedAt()), c.GetSubject()})
				}
				t.Table("ID THUMBPRINT START END LAST_USED SUBJECT", rows)
			})
		}),
	}
	return t.organizationArgument(c, &organization)
}

func (t *Terminal) credentialRemove() *cobra.Command {
	var organization string
	c := &cobra.Command{
		Use: "remove <id or thumbprint>", Short: "end a credential and, within seconds, its streams",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			name := strings.ReplaceAll(args[0], ":", "") // openssl prints thumbprints with colons
			r, err := admin.RemoveCredential(ctx, &pb.RemoveCredentialRequest{Organization: organization, Id: name, ValidateOnly: t.DryRun})
			if err == nil && t.DryRun {
				return t.wouldRemoveCredential(ctx, admin, organization, name)
			}
			return t.Answer(r, err, "", func() { t.Say("Credential %s of %s is removed.", name, organization) })
		}),
	}
	c.ValidArgsFunction = command.First(t.credentials())
	return t.organizationNeeded(t.DryRunFlag(c), &organization)
}

func (t *Terminal) wouldRemoveCredential(ctx context.Context, admin pb.AdminServiceClient, organization, name string) error {
	r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: organization})
	if err != nil {
		return err
	}
	for _, c := range r.GetCredentials() {
		if c.GetId() == name || strings.EqualFold(c.GetThumbprint(), name) {
			return t.Would("remove credential %s of %s, last used %s; %s", c.GetThumbprint(), organization, when(c.GetLastUsedAt()),
				command.Counted(len(r.GetCredentials())-1, "other stays", "others stay"))
		}
	}
	return t.Would("remove credential %s of %s", name, organization) // somebody else has, meanwhile
}
