// Command probe is a function that tries what no function may, and tells what
// came of it.
package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"lapwing.dev/lapwing/test/acceptance/gate"
)

// event says what to try.
type event struct {
	Do      string
	Args    []string
	Seconds int // or times
}

func main() {
	lambda.Start(func(ctx context.Context, e event) (any, error) {
		switch e.Do {
		case "dial":
			return dial(e.Args, time.Duration(e.Seconds)*time.Second), nil
		case "addresses":
			return addresses()
		case "listen":
			return nil, listen(e.Args[0], e.Args[1])
		case "aws":
			return callAWS(ctx, e.Args[0])
		case "read":
			return read(e.Args), nil
		case "find":
			return find(e.Args[0]), nil
		case "write":
			return write(e.Args), nil
		case "fill":
			return fill()
		case "privileges":
			return privileges(), nil
		case "forkbomb":
			n, why := forkBomb(e.Seconds)
			return map[string]any{"processes": n, "error": why}, nil
		case "memoryhog":
			return memoryHog(), nil
		}
		return "", nil
	})
}

// dial returns those of the addresses that take a connection.
func dial(all []string, patience time.Duration) []string {
	open := []string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 512)
	for _, address := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c, err := net.DialTimeout("tcp", address, patience)
			if err != nil {
				return
			}
			c.Close()
			mu.Lock()
			defer mu.Unlock()
			open = append(open, address)
		})
	}
	wg.Wait()
	return open
}

func addresses() ([]string, error) {
	list, err := net.InterfaceAddrs()
	all := []string{}
	for _, a := range list {
		all = append(all, a.String())
	}
	return all, err
}

// listen accepts connections until a gate opens.
func listen(address, until string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	gate.Wait(until)
	return l.Close()
}

// callAWS uses the SDK as it comes, with nothing configured.
func callAWS(ctx context.Context, bucket string) (map[string]string, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil)
	if err != nil {
		return nil, err
	}
	c := s3.NewFromConfig(cfg)
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		return nil, err
	}
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("a/b"), Body: strings.NewReader("content")}); err != nil {
		return nil, err
	}
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("a/b")})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	return map[string]string{"arn": *who.Arn, "object": string(b)}, err
}

// read returns those of the paths that can be read or listed.
func read(paths []string) []string {
	could := []string{}
	for _, p := range paths {
		if _, err := os.ReadFile(p); err == nil {
			could = append(could, p)
		} else if _, err := os.ReadDir(p); err == nil {
			could = append(could, p)
		}
	}
	return could
}

// find returns the files and mounts whose name or (of small ones) content holds
// the text. It looks at all but the kernel's files.
func find(text string) []string {
	found := []string{}
	_ = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if path == "/proc" || path == "/sys" || path == "/usr" {
			return fs.SkipDir
		}
		if strings.Contains(path, text) {
			found = append(found, path)
		}
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Size() < 1<<20 {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
				found = append(found, path+" (content)")
			}
		}
		return nil
	})
	for _, path := range []string{"/proc/self/mountinfo", "/proc/mounts", "/proc/self/environ", "/proc/1/cmdline", "/proc/1/environ", "/proc/cmdline"} {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, path+" (content)")
		}
	}
	return found
}

// write returns those of the directories that a file can be made in.
func write(dirs []string) []string {
	could := []string{}
	for _, dir := range dirs {
		f, err := os.CreateTemp(dir, "probe")
		if err != nil {
			continue
		}
		f.Close()
		could = append(could, dir)
	}
	return could
}

// fill fills /tmp and returns how many MiB went in and why no more did.
func fill() (map[string]any, error) {
	f, err := os.Create("/tmp/full")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 1<<20)
	for n := 0; n < 2048; n++ {
		if _, err := f.Write(block); err != nil {
			return map[string]any{"MiB": n, "error": err.Error()}, nil
		}
	}
	return map[string]any{"MiB": 2048, "error": ""}, nil
}

// privileges tries what needs them, and returns what worked.
func privileges() []string {
	worked := []string{}
	for what, try := range map[string]func() error{
		"be root":          func() error { return rootOnly(os.Getuid() == 0 || os.Geteuid() == 0) },
		"become root":      func() error { return syscall.Setuid(0) },
		"mount":            func() error { return syscall.Mount("none", "/tmp", "tmpfs", 0, "") },
		"chroot":           func() error { return syscall.Chroot("/tmp") },
		"set hostname":     func() error { return syscall.Sethostname([]byte("probe")) },
		"reboot":           func() error { return syscall.Reboot(syscall.LINUX_REBOOT_CMD_CAD_OFF) },
		"raw socket":       func() error { return raw(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP) },
		"packet socket":    func() error { return raw(syscall.AF_PACKET, syscall.SOCK_RAW, 0) },
		"kill process 1":   func() error { return syscall.Kill(1, syscall.SIGKILL) },
		"make a device":    func() error { return syscall.Mknod("/tmp/mem", syscall.S_IFCHR|0o666, 1<<8|1) },
		"write sysctl":     func() error { return overwrite("/proc/sys/kernel/hostname") },
		"write core":       func() error { return overwrite("/proc/sys/kernel/core_pattern") },
		"sysrq":            func() error { return overwrite("/proc/sysrq-trigger") },
		"read kcore":       func() error { return readable("/proc/kcore") },
		"read kmsg":        func() error { return readable("/dev/kmsg") },
		"read memory":      func() error { return readable("/dev/mem") },
		"kvm":              func() error { return readable("/dev/kvm") },
		"docker":           func() error { return readable("/var/run/docker.sock") },
		"write cgroup":     func() error { return overwrite("/sys/fs/cgroup/cgroup.procs") },
		"memory of init":   func() error { return readable("/proc/1/mem") },
		"root of init":     func() error { _, err := os.ReadDir("/proc/1/root/proc"); return err },
		"files of init":    func() error { _, err := os.ReadDir("/proc/1/fd"); return err },
		"load a module":    func() error { return overwrite("/proc/sys/kernel/modprobe") },
		"write uevent":     func() error { return overwrite("/sys/kernel/uevent_helper") },
		"release agent":    func() error { return overwrite("/sys/fs/cgroup/release_agent") },
		"write own binary": func() error { return overwrite("/var/task/bootstrap") },
	} {
		if try() == nil {
			worked = append(worked, what)
		}
	}
	return worked
}

func rootOnly(is bool) error {
	if is {
		return nil
	}
	return syscall.EPERM
}

func raw(domain, typ, proto int) error {
	fd, err := syscall.Socket(domain, typ, proto)
	if err == nil {
		syscall.Close(fd)
	}
	return err
}

func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte("1"))
	return err
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 16))
	return err
}

// forkBomb starts as many processes as it can until it was refused so often, and
// returns how many, and why no more.
func forkBomb(refusals int) (n int, why string) {
	for refusals > 0 {
		if err := exec.Command("sleep", "3600").Start(); err != nil {
			why = err.Error()
			refusals--
			time.Sleep(10 * time.Millisecond)
			continue
		}
		n++
	}
	return n, why
}

// memoryHog takes memory until it is stopped.
func memoryHog() int {
	var all [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		if len(all) > 1024 {
			return len(all)
		}
	}
}
