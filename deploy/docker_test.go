package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// instruction is one of a Dockerfile.
type instruction struct{ name, rest string }

// stages returns the instructions of each stage of the Dockerfile, each
// beginning with its FROM. What stands before the first is left out.
func stages(t *testing.T, file string) [][]instruction {
	t.Helper()
	text := strings.ReplaceAll(read(t, file), "\\\n", " ")
	var all [][]instruction
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		if name == "FROM" {
			all = append(all, nil)
		}
		if len(all) > 0 {
			all[len(all)-1] = append(all[len(all)-1], instruction{name, strings.TrimSpace(rest)})
		}
	}
	return all
}

// given returns what the stage says with the instruction, the last time.
func given(stage []instruction, name string) string {
	value := ""
	for _, i := range stage {
		if i.name == name {
			value = i.rest
		}
	}
	return value
}

func TestImageHasNothingButTheRelay(t *testing.T) {
	all := stages(t, "Dockerfile")
	if len(all) != 2 {
		t.Fatalf("the Dockerfile has %d stages, want one that builds and one that is kept", len(all))
	}
	final := all[1]
	if got := given(final, "FROM"); got != "scratch" {
		t.Errorf("FROM %s, want scratch: no shell, no libraries", got)
	}
	if got := given(final, "USER"); !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(got) {
		t.Errorf("USER %s, want numbers that are not root's, which Kubernetes can check", got)
	}
	for _, i := range final {
		switch i.name {
		case "RUN", "ADD", "SHELL", "HEALTHCHECK":
			t.Errorf("%s %s needs what the image has not", i.name, i.rest)
		case "COPY":
			if !strings.HasPrefix(i.rest, "--from=build ") {
				t.Errorf("COPY %s, want what was built and nothing that lies around", i.rest)
			}
		case "ENTRYPOINT", "CMD":
			if words := []string(nil); json.Unmarshal([]byte(i.rest), &words) != nil || len(words) == 0 {
				t.Errorf("%s %s needs a shell", i.name, i.rest)
			}
		}
	}
	if got, want := given(final, "ENTRYPOINT"), `["/usr/bin/badgerelay"]`; got != want {
		t.Errorf("ENTRYPOINT %s, want %s", got, want)
	}
}

// TestImageHasRoomForWhatTheRelayWrites looks that the root can be read-only:
// each directory that the relay writes to by default is a volume, which takes
// its owner from the image.
func TestImageHasRoomForWhatTheRelayWrites(t *testing.T) {
	all := stages(t, "Dockerfile")
	var example struct {
		Admin    struct{ Socket string }
		Registry struct{ Path string }
	}
	decode(t, "badgerelay.example.yaml", &example)
	var volumes []string
	if err := json.Unmarshal([]byte(given(all[1], "VOLUME")), &volumes); err != nil {
		t.Fatalf("VOLUME: %v", err)
	}
	for _, file := range []string{example.Admin.Socket, example.Registry.Path} {
		directory := filepath.Dir(file)
		if !slices.Contains(volumes, directory) {
			t.Errorf("%s is not on one of the volumes %v", file, volumes)
		}
		if made := given(all[0], "RUN"); !strings.Contains(made, " /root-fs"+directory) {
			t.Errorf("%s has no owner in the image: RUN %s", directory, made)
		}
	}
	for _, port := range []string{"8443", "8444", "9464"} {
		if !slices.Contains(strings.Fields(given(all[1], "EXPOSE")), port) || !strings.Contains(read(t, "badgerelay.example.yaml"), ":"+port+"\n") {
			t.Errorf("port %s is not both exposed and in the example", port)
		}
	}
}

// TestReleasedImagesAreLikeTheOneFromSource looks at what `make images` makes.
func TestReleasedImagesAreLikeTheOneFromSource(t *testing.T) {
	fromSource := stages(t, "Dockerfile")[1]
	for _, program := range []string{"badgerelay", "badgeagent"} {
		all := stages(t, "images/"+program+".Dockerfile")
		if len(all) != 1 || given(all[0], "FROM") != "scratch" || given(all[0], "RUN") != "" {
			t.Fatalf("%s is made of %v, want what is built and nothing else", program, all)
		}
		for _, what := range []string{"USER", "ENV", "STOPSIGNAL", "ENTRYPOINT", "VOLUME", "CMD"} {
			want := strings.ReplaceAll(given(fromSource, what), "badgerelay", program)
			if got := given(all[0], what); got != want {
				t.Errorf("%s: %s %s, want %s as in the Dockerfile", program, what, got, want)
			}
		}
		unit := setting(read(t, "systemd/"+program+".service"), "ExecStart")
		var words []string
		if err := json.Unmarshal([]byte(given(all[0], "CMD")), &words); err != nil || unit != program+" "+strings.Join(words, " ") {
			t.Errorf("%s: the image starts it with %q, the unit with %q, %v", program, words, unit, err)
		}
	}
	if got, want := given(stages(t, "images/badgerelay.Dockerfile")[0], "EXPOSE"), given(fromSource, "EXPOSE"); got != want {
		t.Errorf("EXPOSE %s, want %s", got, want)
	}
	for _, port := range strings.Fields(given(stages(t, "images/badgeagent.Dockerfile")[0], "EXPOSE")) {
		if !strings.Contains(read(t, "badgeagent.example.yaml"), ":"+port) {
			t.Errorf("port %s of the agent is not in its example", port)
		}
	}
}

func TestImageIsBuiltLikeTheReleases(t *testing.T) {
	build := stages(t, "Dockerfile")[0]
	if got := given(build, "FROM"); !strings.Contains(got, "golang:${GO_VERSION}") {
		t.Errorf("built FROM %s", got)
	}
	var run []string
	for _, i := range build {
		if i.name == "RUN" {
			run = append(run, i.rest)
		}
	}
	if !strings.Contains(strings.Join(run, "\n"), "make build PROGRAMS=badgerelay VERSION=$VERSION") {
		t.Errorf("RUN %q, want the Makefile's build, which `make reproducible` checks", run)
	}
	recipe := regexp.MustCompile(`(?m)^build:.*\n\t(.*)$`).FindStringSubmatch(read(t, "../Makefile"))
	if recipe == nil {
		t.Fatal("the Makefile has no build")
	}
	for _, flag := range []string{"CGO_ENABLED=0", "-trimpath", "-buildvcs=false"} {
		if !strings.Contains(recipe[1], flag) {
			t.Errorf("make build lacks %s: %s", flag, recipe[1])
		}
	}
	module := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if want := "ARG GO_VERSION=" + module[1]; !strings.Contains(read(t, "Dockerfile"), want+"\n") {
		t.Errorf("the Dockerfile lacks %s, the version of go.mod", want)
	}
}

// TestBuildContextIsWhole looks for folders with code that the build would not see.
func TestBuildContextIsWhole(t *testing.T) {
	ignored := read(t, "Dockerfile.dockerignore")
	sources, err := filepath.Glob("../*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		folder := strings.Split(filepath.ToSlash(source), "/")[1]
		if folder == "deploy" || folder == "bin" || strings.HasPrefix(folder, ".") {
			continue
		}
		if info, err := os.Stat("../" + folder); err == nil && info.IsDir() && !strings.Contains(ignored, "\n!"+folder+"\n") {
			t.Errorf("Dockerfile.dockerignore leaves out %s", folder)
		}
	}
}

// TestImagesOfARelease unpacks what `make images` has made, looks who may write
// where, and has the relay's demo judge itself in there, also in the images of the
// other architecture, by Debian's qemu-user: `make test-images`.
func TestImagesOfARelease(t *testing.T) {
	release := os.Getenv("IMAGES")
	if release == "" {
		t.Skip("takes images: make test-images, as root")
	}
	store := t.TempDir()
	buildah := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), realProgram(t, "buildah", "buildah"),
			append([]string{"--storage-driver", "vfs", "--root", store + "/storage", "--runroot", store + "/run"}, args...)...)
		var log strings.Builder
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("buildah %v: %v\n%s\n%s", args, err, out, &log)
		}
		return strings.TrimSpace(string(out))
	}
	for _, image := range imagesOf(t, release) {
		program := image.program
		container := buildah("from", "--pull-always", "--arch", image.architecture, "oci-archive:"+image.file)
		root := buildah("mount", container)
		for path, want := range map[string]string{
			"/tmp":                               "drwxrwxrwt 0",
			"/usr/bin/" + program:                "-rwxr-xr-x 0",
			"/var/lib":                           "drwxr-xr-x 0",
			"/var/lib/" + program:                "drwx------ 65532",
			"/run/" + program:                    "drwxr-x--- 65532",
			"/etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0",
		} {
			out, err := exec.CommandContext(t.Context(), "stat", "-c", "%A %u", root+path).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != want {
				t.Errorf("%s: %s is %s, want %s", program, path, got, want)
			}
		}
		words := []string{"run", "--isolation", "chroot", container, "--"}
		if emulator := map[string]string{"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}[image.architecture]; image.architecture != runtime.GOARCH {
			command(t, "cp", realProgram(t, emulator, "qemu-user-static"), root+"/tmp/emulator")
			words = append(words, "/tmp/emulator")
		}
		run := func(args ...string) string {
			return buildah(slices.Concat(words, []string{"/usr/bin/" + program}, args)...)
		}
		if got := run("version"); !strings.HasPrefix(got, program+" ") || !strings.Contains(got, "linux/"+image.architecture) {
			t.Errorf("version in the image for %s prints %q", image.architecture, got)
		}
		if program == "badgerelay" {
			if got := run("demo", "--check", "5s"); !strings.Contains(got, `"wrongBadges":0`) {
				t.Errorf("the demo in the image ends with %s", got)
			}
		}
		buildah("rm", container)
	}
}

// builtImage is a program's image for one architecture, in a file that holds it for
// all of them.
type builtImage struct{ program, architecture, file string }

// imagesOf returns the images of a release: for each architecture that it has an
// archive for Linux for.
func imagesOf(t *testing.T, release string) (all []builtImage) {
	t.Helper()
	for _, program := range []string{"badgerelay", "badgeagent"} {
		files, err := filepath.Glob(release + "/" + program + "_*_image.oci.tar")
		if err != nil || len(files) != 1 {
			t.Fatalf("images of %s: %v, %v", program, files, err)
		}
		for _, architecture := range []string{"amd64", "arm64"} {
			if archives, _ := filepath.Glob(release + "/badgerelay_*_linux_" + architecture + ".tar.gz"); len(archives) == 1 { // the pattern is right
				all = append(all, builtImage{program, architecture, files[0]})
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("no archive for Linux in %s", release)
	}
	return all
}
