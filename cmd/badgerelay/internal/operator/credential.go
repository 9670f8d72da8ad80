package operator

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/auth"
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

// organizationFlag adds the required flag --organization.
func organizationFlag(c *cobra.Command, name *string) *cobra.Command {
	c.Flags().StringVar(name, "organization", "", "the organization's domain (required)")
	_ = c.MarkFlagRequired("organization") // the flag exists
	return c
}

// maxCertificate is the contract's bound, AddCredentialRequest.certificate.
const maxCertificate = 16 << 10

func (t *Terminal) credentialAdd() *cobra.Command {
	var organization, file, start, end string
	var force bool
	c := &cobra.Command{
		Use: "add", Short: "register a certificate", Args: cobra.NoArgs,
		Long: `Registers a certificate: DER, PEM, base64 or a PKCS #7 file (.p7b) with one
certificate. One that has expired, or whose subject names another domain than the
organization's, is registered with --force only: most often it is the wrong file.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			request, err := t.credentialRequest(organization, file, start, end, force)
			if err != nil {
				return err
			}
			t.say("Adding a key to Service Principal...")
			r, err := admin.AddCredential(ctx, request)
			if err != nil {
				return err
			}
			return t.print(r.GetCredential(), func() {
				t.showCredential(r.GetCredential())
				t.say("Complete.")
			})
		}),
	}
	c.Flags().StringVar(&file, "certificate", "", "the certificate's file, - for standard input (required)")
	c.Flags().BoolVar(&force, "force", false, "register it though it has expired or names another organization")
	c.Flags().StringVar(&start, "start", "", "from when it counts, RFC 3339 or a date (default: the certificate's beginning)")
	c.Flags().StringVar(&end, "end", "", "until when it counts (default: the certificate's end)")
	_ = c.MarkFlagRequired("certificate") // the flag exists
	return organizationFlag(c, &organization)
}

func (t *Terminal) credentialRequest(organization, file, start, end string, force bool) (*pb.AddCredentialRequest, error) {
	r, err := t.open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close() // it was only read
	certificate, err := io.ReadAll(io.LimitReader(r, maxCertificate+1))
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if len(certificate) > maxCertificate {
		return nil, usage("%s has more than 16 KiB; it is not a certificate", file)
	}
	parsed, err := auth.ReadCertificateFile(certificate)
	if err != nil {
		return nil, usage("%s: %v", file, err)
	}
	for _, doubt := range doubts(parsed, organization, time.Now()) {
		if !force {
			return nil, usage("%s: %s; check that it is the right file, and add --force to register it all the same", file, doubt)
		}
		fmt.Fprintln(t.Err, "warning:", doubt)
	}
	request := &pb.AddCredentialRequest{Organization: organization, Certificate: parsed.Raw}
	if request.StartAt, err = parseTime("--start", start); err != nil {
		return nil, err
	}
	if request.EndAt, err = parseTime("--end", end); err != nil {
		return nil, err
	}
	return request, nil
}

// doubts says what speaks against registering a certificate for organization.
func doubts(cert *x509.Certificate, organization string, now time.Time) (all []string) {
	if now.After(cert.NotAfter) {
		all = append(all, fmt.Sprintf("the certificate expired on %s", cert.NotAfter.UTC().Format(time.DateOnly)))
	}
	names := append([]string{cert.Subject.CommonName}, cert.DNSNames...)
	domains := slices.DeleteFunc(names, func(name string) bool { return !strings.Contains(name, ".") || strings.ContainsAny(name, " /@") })
	if len(domains) > 0 && !slices.ContainsFunc(domains, func(name string) bool { return related(name, organization) }) {
		all = append(all, fmt.Sprintf("the certificate names %s, not %s", strings.Join(domains, ", "), organization))
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
	f, err := os.Open(file)
	if err != nil {
		return nil, usage("%v", err)
	}
	return f, nil
}

func parseTime(flag, s string) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err := time.Parse(layout, s); err == nil {
			return timestamppb.New(at), nil
		}
	}
	return nil, usage("%s %q is not a time such as 2027-01-31T00:00:00Z or 2027-01-31", flag, s)
}

func (t *Terminal) showCredential(c *pb.Credential) {
	t.list(
		[2]string{"KeyId", c.GetId()},
		[2]string{"Thumbprint", c.GetThumbprint()},
		[2]string{"Key SHA-256", c.GetKeySha256()},
		[2]string{"Subject", c.GetSubject()},
		[2]string{"Type", c.GetType()},
		[2]string{"Usage", c.GetUsage()},
		[2]string{"StartDate", when(c.GetStartAt())},
		[2]string{"EndDate", when(c.GetEndAt())},
	)
}

func (t *Terminal) credentialList() *cobra.Command {
	var organization string
	c := &cobra.Command{
		Use: "list", Short: "list an organization's credentials, newest first", Args: cobra.NoArgs,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: organization})
			if err != nil {
				return err
			}
			return t.print(r, func() {
				var rows [][]string
				for _, c := range r.GetCredentials() {
					rows = append(rows, []string{c.GetId(), c.GetThumbprint(), when(c.GetStartAt()), when(c.GetEndAt()), when(c.GetLastUsedAt()), c.GetSubject()})
				}
				t.table("ID THUMBPRINT START END LAST_USED SUBJECT", rows)
			})
		}),
	}
	return organizationFlag(c, &organization)
}

func (t *Terminal) credentialRemove() *cobra.Command {
	var organization string
	c := &cobra.Command{
		Use: "remove <id or thumbprint>", Short: "end a credential and, within seconds, its streams", Args: one("the credential's id or thumbprint"),
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.RemoveCredential(ctx, &pb.RemoveCredentialRequest{Organization: organization, Id: args[0]})
			if err != nil {
				return err
			}
			return t.print(r, func() { t.say("Credential %s of %s is removed.", args[0], organization) })
		}),
	}
	return organizationFlag(c, &organization)
}
