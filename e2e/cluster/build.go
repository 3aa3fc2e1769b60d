//go:build unix

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"remit/e2e/process"
)

// Binaries are the paths of the programs that e2e/kubeapi pins.
type Binaries struct {
	Etcd              string
	APIServer         string
	ControllerManager string
	Kubectl           string
}

// program is a main package and the name the go command gives its binary.
type program struct{ pkg, binary string }

var programs = []program{
	{"go.etcd.io/etcd/server/v3", "server"},
	{"k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"},
	{"k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"},
	{"k8s.io/kubernetes/cmd/kubectl", "kubectl"},
}

// Build returns the programs, and builds them first if the user's cache does
// not hold them: minutes the first time, milliseconds from then on. The cache
// is keyed by what decides the result (the pinned module and the flags), so
// that several checkouts share one build, and a lock lets only one process
// build. logf is told when a build or a wait begins; it may be nil.
func Build(ctx context.Context, logf func(format string, args ...any)) (Binaries, error) {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	source, err := kubeapiDir()
	if err != nil {
		return Binaries{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Binaries{}, fmt.Errorf("find the cache directory for the Kubernetes binaries: %w; set HOME or XDG_CACHE_HOME", err)
	}
	dir, err := build(ctx, source, filepath.Join(cache, "remit", "e2e"), programs, logf)
	if err != nil {
		return Binaries{}, err
	}
	return Binaries{
		Etcd:              filepath.Join(dir, programs[0].binary),
		APIServer:         filepath.Join(dir, programs[1].binary),
		ControllerManager: filepath.Join(dir, programs[2].binary),
		Kubectl:           filepath.Join(dir, programs[3].binary),
	}, nil
}

// build returns the directory with the binaries of those programs, which the
// module in source pins; it makes it, below root, if it is not there.
func build(ctx context.Context, source, root string, programs []program, logf func(string, ...any)) (string, error) {
	spec, err := newBuildSpec(source, programs)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, spec.key)
	// The directory appears by a rename, so it is complete when it is there.
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make the cache for the Kubernetes binaries: %w", err)
	}
	unlock, err := lockFile(ctx, dir+".lock", func() {
		logf("waiting for another process that builds the Kubernetes binaries into %s", dir)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // built by whom we waited for
	}
	return dir, spec.build(ctx, dir, logf)
}

// kubeapiDir finds e2e/kubeapi of this checkout: from the working directory
// upwards (tests run in their package's folder), else from where this file was
// compiled, which is unknown under -trimpath.
func kubeapiDir() (string, error) {
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for {
			found := filepath.Join(dir, "e2e", "kubeapi")
			if _, err := os.Stat(filepath.Join(found, "go.sum")); err == nil {
				return found, nil
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return "", fmt.Errorf("find e2e/kubeapi, which pins the Kubernetes binaries, above %s: run this inside a checkout of Remit",
		strings.Join(starts, " and "))
}

// buildSpec is all that decides what the binaries are.
type buildSpec struct {
	source   string
	programs []program
	args     []string
	env      []string
	key      string
}

var kubernetesRequirement = regexp.MustCompile(`(?m)^\s*(?:require\s+)?k8s\.io/kubernetes\s+(v(\d+)\.(\d+)\.\S+)`)

func newBuildSpec(source string, programs []program) (buildSpec, error) {
	goMod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return buildSpec{}, fmt.Errorf("read the versions of the Kubernetes binaries: %w", err)
	}
	goSum, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return buildSpec{}, fmt.Errorf("read the checksums of the Kubernetes binaries: %w", err)
	}
	version := kubernetesRequirement.FindSubmatch(goMod)
	if version == nil {
		return buildSpec{}, fmt.Errorf("%s does not require k8s.io/kubernetes", filepath.Join(source, "go.mod"))
	}
	// Kubernetes' own build sets these; without them /version would claim to
	// be v0.0.0-master, and a client that compares versions would be misled.
	const pkg = "k8s.io/component-base/version."
	ldflags := fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s -X %sgitTreeState=clean",
		pkg, version[1], pkg, version[2], pkg, version[3], pkg)
	s := buildSpec{
		source: source, programs: programs,
		args: []string{"build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", ldflags},
		env: []string{
			"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=",
			"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH,
		},
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q\n%q\n%q\n", goMod, goSum, s.args)
	for _, p := range programs {
		fmt.Fprintf(h, "%q\n", p.pkg)
	}
	fmt.Fprintf(h, "%q\n", s.env)
	s.key = hex.EncodeToString(h.Sum(nil))[:16]
	return s, nil
}

// build fills dir. The caller holds the lock.
func (s buildSpec) build(ctx context.Context, dir string, logf func(string, ...any)) error {
	leftovers, _ := filepath.Glob(dir + ".tmp-*") // the pattern is valid
	for _, leftover := range leftovers {
		if err := os.RemoveAll(leftover); err != nil {
			return fmt.Errorf("remove an unfinished build: %w", err)
		}
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-")
	if err != nil {
		return fmt.Errorf("make a directory to build the Kubernetes binaries in: %w", err)
	}
	defer os.RemoveAll(tmp) // after the rename there is nothing to remove
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("open the build directory to other users: %w", err)
	}

	logf("building kube-apiserver, kube-controller-manager, kubectl and etcd into %s: once, for about 6 minutes on 2 cores", dir)
	start := time.Now()
	args := append(s.args[:len(s.args):len(s.args)], "-o", tmp+string(filepath.Separator))
	for _, p := range s.programs {
		args = append(args, p.pkg)
	}
	if err := s.run(ctx, args); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("move the built Kubernetes binaries into place: %w", err)
	}
	logf("built the Kubernetes binaries in %v", time.Since(start).Round(time.Second))
	return nil
}

// run runs the go command so that it ends with this process: a test that
// reaches its time limit must not leave a build behind that works beside the
// next attempt.
func (s buildSpec) run(ctx context.Context, args []string) error {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build the Kubernetes binaries: %w; install Go", err)
	}
	group, err := process.NewGroup("remit-build")
	if err != nil {
		return err
	}
	// A build that failed is an end by itself, too: it has been reported.
	defer func() { _ = group.Close() }()
	p, err := group.Start(process.Command{
		Name:        "go-build",
		Path:        goCommand,
		Args:        args,
		Dir:         s.source,
		Env:         append(os.Environ(), s.env...),
		DeathSignal: syscall.SIGINT, // lets it end its compilers
	})
	if err != nil {
		return err
	}
	start := time.Now()
	select {
	case <-p.Done():
		if !p.Succeeded() {
			return fmt.Errorf("build the Kubernetes binaries in %s: %w", s.source, p.Err())
		}
		return nil
	case <-ctx.Done():
		_ = p.Stop(syscall.SIGINT, 10*time.Second)
		return fmt.Errorf("building the Kubernetes binaries was interrupted after %v (%w): what was compiled is kept and the next attempt goes on from there; to build them ahead: go run ./e2e/cmd/servers",
			time.Since(start).Round(time.Second), context.Cause(ctx))
	}
}

// lockFile takes an exclusive lock that the kernel frees when this process
// ends, however it ends. waiting is called once if the lock is not free.
func lockFile(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build lock: %w", err)
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			told = true
			waiting()
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for the process that builds the Kubernetes binaries (it holds %s): %w", path, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
