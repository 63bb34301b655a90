package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"lapwing.dev/lapwing/internal/credentials"
)

// spoilers are variables that would go before those that env prints, or spoil
// them: a profile, a session of another account.
var spoilers = []string{
	"AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CREDENTIAL_EXPIRATION",
	"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
}

func envCommand(data *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the environment variables that point AWS clients at Lapwing",
		Long: `Print export lines, for a POSIX shell, with the endpoint, the region and the root
credentials of the Lapwing that is running. Credentials are made when Lapwing
starts for the first time, and stay.`,
		Example: `  eval "$(sudo lapwing env)"
  aws sts get-caller-identity`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ep, err := readEndpoint(*data)
			if err != nil {
				return err
			}
			if err := ep.running(); err != nil {
				return explain(err, *data, "")
			}
			root, err := credentials.Read(filepath.Join(*data, credentialsDir))
			if err != nil {
				return err
			}
			vars := [][2]string{
				{"AWS_ENDPOINT_URL", ep.URL},
				{"AWS_ACCESS_KEY_ID", root.AccessKeyID},
				{"AWS_SECRET_ACCESS_KEY", root.SecretAccessKey},
				{"AWS_REGION", ep.Region},
				{"AWS_DEFAULT_REGION", ep.Region}, // older tools know only this one
				{"LAPWING_ACCOUNT_ID", root.AccountID},
			}
			if u := keyValueStoreURL(ep.URL); u != "" {
				vars = append(vars, [2]string{"AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE", u})
			}
			if ep.CAFile != "" {
				vars = append(vars, [2]string{"AWS_CA_BUNDLE", ep.CAFile})
			}
			if asJSON {
				m := map[string]string{}
				for _, v := range vars {
					m[v[0]] = v[1]
				}
				return printJSON(cmd, m)
			}
			var b strings.Builder
			for _, v := range vars {
				fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
			}
			fmt.Fprintf(&b, "unset %s\n", strings.Join(spoilers, " "))
			_, err = fmt.Fprint(cmd.OutOrStdout(), b.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object instead")
	return cmd
}

// keyValueStoreURL returns the endpoint for clients of CloudFront KeyValueStore where
// it has to be another than the common one: they put the account's number before the
// host, as a label of its name, which an address of loopback does not have.
func keyValueStoreURL(common string) string {
	u, err := url.Parse(common)
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
		return ""
	}
	u.Host = net.JoinHostPort("localhost", u.Port())
	return u.String()
}

// shellQuote quotes s for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func readCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}
