package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// tenMinutes is how long a stranger takes from the downloaded files to a badge,
// without reading and typing.
const tenMinutes = 10 * time.Minute

// TestFirstBadgeFromPackages boots a Debian that has neither Go nor this
// repository, follows the guide's page on packages in its own words until a phone
// carries a number, and then upgrades, removes, reinstalls and purges the
// packages: `make test-packages`.
func TestFirstBadgeFromPackages(t *testing.T) {
	m := bootDebian(t, cleanDebian(t))
	m.bring(t, ".", releaseFiles(t, "*_"+runtime.GOARCH+".deb")...)
	m.bring(t, ".", "../bin/release/SHA256SUMS")
	guide := blocks(t, read(t, "packages.md"), "## A first badge in ten minutes", "## What the packages bring")
	if runtime.GOARCH != "amd64" {
		guide = strings.ReplaceAll(guide, "_amd64.deb", "_"+runtime.GOARCH+".deb")
	}
	began := time.Now()
	m.want(t, m.run(t, "the guide", guide), "badgerelay_", ": OK\n", "The configuration is valid.", "an impossible device token came back as BadDeviceToken",
		"ResultType : Succeeded", "ann@fabrikam.com=7 delivered")
	m.run(t, "the phone carries it", badge("7"))
	t.Logf("a badge after %v", time.Since(began).Round(time.Second))
	if took := time.Since(began); took > tenMinutes {
		t.Errorf("a badge after %v, want it within %v", took, tenMinutes)
	}

	m.want(t, m.run(t, "who may read what", `
stat -c '%A %U %G %n' /etc/badgerelay /etc/badgerelay/badgerelay.yaml /var/lib/badgerelay /etc/badgeagent /etc/badgeagent/badgeagent.yaml /var/lib/badgeagent
id badgerelay; id badgeagent
systemctl is-enabled badgeagent || true; systemctl is-failed badgeagent || true`),
		"drwxr-x--- root badgerelay /etc/badgerelay\n", "-rw-r----- root badgerelay /etc/badgerelay/badgerelay.yaml\n",
		"drwx------ badgerelay badgerelay /var/lib/badgerelay\n", "drwxr-x--- root badgeagent /etc/badgeagent\n",
		"-rw-r----- root badgeagent /etc/badgeagent/badgeagent.yaml\n", "drwx------ badgeagent badgeagent /var/lib/badgeagent\n",
		"\ndisabled\n", "\ninactive\n")
	m.run(t, "the agent's daemon", `
echo secret > /etc/badgeagent/imap-password && chgrp badgeagent /etc/badgeagent/imap-password && chmod 0640 /etc/badgeagent/imap-password
cat > /etc/badgeagent/badgeagent.yaml <<EOF
imap: {address: "127.0.0.1:143", security: none, master_user: badgeagent, master_password_file: /etc/badgeagent/imap-password}
local: {socket: /run/badgeagent/local.sock}
EOF
systemctl enable --now badgeagent`)

	before := m.run(t, "before the upgrade", state)
	m.bring(t, "next", packagesOf(t, "9.9.9", "deb")...)
	m.run(t, "upgrade, the answer to Debian's question being to keep what is there", "pids=$(systemctl show -p MainPID --value badgerelay badgeagent)\n"+
		"DEBIAN_FRONTEND=noninteractive apt-get install -y -o Dpkg::Options::=--force-confold ./next/*.deb\n"+
		`test "$pids" != "$(systemctl show -p MainPID --value badgerelay badgeagent)"`+"\nsystemctl is-active badgerelay badgeagent\n"+
		"dpkg-query -W -f '${Version}\n' badgerelay badgeagent apnssim | grep -c '^9.9.9' | grep 3\n"+
		"grep changed /etc/badgerelay/badgerelay.yaml.dpkg-dist /etc/badgeagent/badgeagent.yaml.dpkg-dist && rm /etc/*/*.dpkg-dist")
	if after := m.run(t, "after the upgrade", state); after != before {
		t.Errorf("before the upgrade\n%s\nafter it\n%s", before, after)
	}
	publish := "runuser -u badgeagent -- badgeagent publish ann@fabrikam.com="
	m.want(t, m.run(t, "a count after the upgrade", publish+"8\n"+badge("8")), "ann@fabrikam.com=8 delivered")

	m.run(t, "remove", `
apt-get remove -y badgerelay badgeagent
! pgrep -x badgerelay && ! pgrep -x badgeagent && ! test -e /usr/bin/badgerelay
test -s /var/lib/badgerelay/registry.db && test -s /var/lib/badgeagent/OAuthCert.cer && test -s /etc/badgerelay/badgerelay.yaml`)
	m.run(t, "install again", "DEBIAN_FRONTEND=noninteractive apt-get install -y ./next/badgerelay_*.deb ./next/badgeagent_*.deb && systemctl is-active badgerelay badgeagent")
	if after := m.run(t, "after the removal", state); after != before {
		t.Errorf("before the removal\n%s\nafter it\n%s", before, after)
	}
	m.want(t, m.run(t, "a count after the removal", publish+"9\n"+badge("9")), "ann@fabrikam.com=9 delivered")
	m.run(t, "purge", `
apt-get purge -y badgerelay badgeagent apnssim
! test -e /var/lib/badgerelay && ! test -e /var/lib/badgeagent && ! test -e /etc/badgerelay/badgerelay.yaml
! test -L /etc/systemd/system/multi-user.target.wants/badgerelay.service
test -s /etc/badgerelay/tls.key # the administrator's own
test -z "$(systemctl list-units --failed --no-legend 'badge*')"`)
}

// state tells what an upgrade must not change.
const state = `sha256sum /etc/badgerelay/* /etc/badgeagent/* /var/lib/badgeagent/OAuthCert.cer
stat -c '%A %U %G %n' /etc/badgerelay/* /etc/badgeagent/* /var/lib/badgerelay /var/lib/badgeagent
badgerelay subscription list --organization fabrikam.com
`

// TestRPMs installs, upgrades and removes the packages of Red Hat's kind in the
// root directory of a Debian, where their scripts run: `make test-packages`.
func TestRPMs(t *testing.T) {
	release := cleanDebian(t)
	rpm := realProgram(t, "rpm", "rpm")
	root := debian(t, release)
	inRoot := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	// There are no other rpms there that could have what these need.
	install := []string{rpm, "--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", "--upgrade", "--verbose"}
	inRoot(append(install, releaseFiles(t, "*."+rpmArch()+".rpm")...)...)
	look := func() string {
		return inRoot("chroot", root, "sh", "-ec", `
stat -c '%A %U %G %n' /etc/badgerelay /etc/badgerelay/badgerelay.yaml /var/lib/badgerelay /etc/badgeagent/badgeagent.yaml /var/lib/badgeagent
sha256sum /etc/badgerelay/badgerelay.yaml`)
	}
	for _, want := range []string{
		"drwxr-x--- root badgerelay /etc/badgerelay\n", "-rw-r----- root badgerelay /etc/badgerelay/badgerelay.yaml\n",
		"drwx------ badgerelay badgerelay /var/lib/badgerelay\n", "-rw-r----- root badgeagent /etc/badgeagent/badgeagent.yaml\n",
	} {
		if got := look(); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	inRoot("chroot", root, "sh", "-ec", "badgerelay version; badgeagent version; apnssim version; echo '# mine' >> /etc/badgerelay/badgerelay.yaml; echo kept > /var/lib/badgerelay/registry.db")
	before := look()
	inRoot(append(install, packagesOf(t, "9.9.9", "rpm")...)...)
	if after := look(); after != before {
		t.Errorf("before the upgrade\n%s\nafter it\n%s", before, after)
	}
	inRoot("chroot", root, "sh", "-ec", "grep changed /etc/badgerelay/badgerelay.yaml.rpmnew; test $(stat -c %G /etc/badgerelay/badgerelay.yaml.rpmnew) = badgerelay")
	inRoot(rpm, "--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", "--erase", "badgerelay", "badgeagent", "apnssim")
	inRoot("chroot", root, "sh", "-ec", "! test -e /usr/bin/badgerelay; grep -q mine /etc/badgerelay/badgerelay.yaml.rpmsave; grep -q kept /var/lib/badgerelay/registry.db")
}

// rpmArch is what rpm calls the architecture of this machine.
func rpmArch() string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
}

// releaseFiles returns the release's files of the pattern.
func releaseFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob("../bin/release/" + pattern)
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files %s in the release, want 3, %v: make release", len(files), pattern, err)
	}
	return files
}

// packagesOf makes the release's packages once more, as those of another version,
// in which the configurations that they bring have changed.
func packagesOf(t *testing.T, version, kind string) []string {
	t.Helper()
	target, stage := t.TempDir(), filepath.Join(t.TempDir(), "stage")
	command(t, "cp", "-al", "../bin/stage", stage)
	for _, name := range packaged {
		if file := filepath.Join(stage, "packages", name, "conffile.yaml"); name != "apnssim" {
			old, err := os.ReadFile(file)
			if err == nil {
				err = os.Remove(file) // it is the release's too
			}
			if err == nil {
				err = os.WriteFile(file, append(old, "# changed in "+version+"\n"...), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), absolute(t, "../bin/tools/nfpm"), "package", "--packager", kind,
			"--config", absolute(t, "packages/"+name+".yaml"), "--target", target)
		cmd.Dir = filepath.Join(stage, "linux_"+runtime.GOARCH)
		cmd.Env = append(os.Environ(), "VERSION="+version, "ARCH="+runtime.GOARCH)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nfpm: %v\n%s", err, out)
		}
	}
	files, err := filepath.Glob(target + "/*")
	if err != nil || len(files) != len(packaged) {
		t.Fatalf("nfpm has made %v, %v", files, err)
	}
	return files
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// packaged are the programs that have packages.
var packaged = []string{"badgerelay", "badgeagent", "apnssim"}

// description is what nfpm reads, as far as it has to fit the rest of deploy.
type description struct {
	Name     string
	Contents []struct {
		Src, Dst, Type string
	}
	Overrides map[string]struct{ Scripts map[string]string }
}

// TestPackagesFitTheUnits looks that what packages install is what units,
// examples and scripts name. It makes no package.
func TestPackagesFitTheUnits(t *testing.T) {
	for _, name := range packaged {
		t.Run(name, func(t *testing.T) {
			var d description
			strict := yaml.NewDecoder(strings.NewReader(read(t, "packages/"+name+".yaml")))
			if err := strict.Decode(&d); err != nil || d.Name != name {
				t.Fatalf("of %q: %v", d.Name, err)
			}
			to := map[string]string{}
			for _, c := range d.Contents {
				to[c.Dst] = c.Src
				if in, found := strings.CutPrefix(c.Src, "deploy/"); found {
					if files, err := filepath.Glob(in); err != nil || len(files) == 0 {
						t.Errorf("%s is not there", c.Src)
					}
				}
			}
			if to["/usr/bin/"+name] != name {
				t.Errorf("no program in /usr/bin: %v", to)
			}
			if name == "apnssim" {
				return
			}
			unit := read(t, to["/usr/lib/systemd/system/"+name+".service"][len("deploy/"):])
			start := setting(unit, "ExecStart")
			if program, _, _ := strings.Cut(start, " "); program != name {
				t.Errorf("the unit starts %q, want the program that systemd finds first", program)
			}
			file := start[strings.Index(start, "--config ")+len("--config "):]
			if to[file] == "" {
				t.Errorf("the unit reads %s, which no package brings: %v", file, to)
			}
			if !strings.Contains(read(t, "systemd/"+name+".sysusers"), "u "+setting(unit, "User")+" - ") {
				t.Errorf("nobody makes the user %s", setting(unit, "User"))
			}
			for kind, o := range d.Overrides {
				for when, script := range o.Scripts {
					if _, err := os.Stat("packages/" + kind + "/" + filepath.Base(script)); err != nil {
						t.Errorf("%s, %s: %v", kind, when, err)
					}
				}
			}
		})
	}
}

// shipped is a setting in a configuration that packages bring, behind its #.
var shipped = regexp.MustCompile(`(?m)^# ([a-z ].*)$`)

// TestShippedConfigurations looks that what stands in the packages' configurations
// is right once its # is taken away.
func TestShippedConfigurations(t *testing.T) {
	for _, name := range []string{"badgerelay", "badgeagent"} {
		_, settings, _ := strings.Cut(read(t, "packages/"+name+".conffile.yaml"), "\n#\n# ")
		_, settings, found := strings.Cut(settings, "\n#\n")
		var uncommented strings.Builder
		for _, line := range shipped.FindAllStringSubmatch(settings, -1) {
			fmt.Fprintln(&uncommented, line[1])
		}
		var values map[string]any
		if err := yaml.Unmarshal([]byte(uncommented.String()), &values); err != nil || !found || len(values) < 3 {
			t.Errorf("%s: %d settings, %v:\n%s", name, len(values), err, &uncommented)
		}
	}
}
