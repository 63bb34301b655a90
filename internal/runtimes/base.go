package runtimes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"lapwing.dev/lapwing/internal/sandbox"
)

// base is the user land below every runtime.
//
// Of the host only /usr/bin, /usr/lib, /usr/lib64 and the time zones are
// mounted: programs and libraries that the distribution installed, the same for
// everybody who has that distribution. Not mounted are /usr/local, /usr/src and
// the rest of /usr/share, where operators keep what is theirs. The mounts are
// read-only; set-user-ID bits have no effect in a sandbox, which never gains
// privileges. The host's /etc is never mounted: it holds names of users and
// hosts and sometimes secrets, so that a minimal one is made instead.
type base struct {
	usr string // the /usr whose parts are mounted
	etc string // the generated /etc
}

// The user and group that functions run as, as on AWS.
const (
	// UserID is the user id of a function's processes.
	UserID = 993
	// GroupID is the group id of a function's processes.
	GroupID = 990
	user    = "sbx_user1051"
)

// usrParts are the parts of /usr that the base has, where they exist.
var usrParts = []string{"bin", "lib", "lib64", "share/zoneinfo", "share/nodejs", "share/rubygems-integration"}

func openBase(dir string) (base, error) {
	for _, name := range []string{"bin", "lib"} {
		if dest, err := os.Readlink("/" + name); err != nil || strings.TrimPrefix(dest, "/") != "usr/"+name {
			return base{}, fmt.Errorf("/%s is not a link to /usr/%s: a distribution with a merged /usr is needed", name, name)
		}
	}
	etc, err := writeTree(filepath.Join(dir, "base"), etcFiles(nil))
	if err != nil {
		return base{}, err
	}
	return base{usr: "/usr", etc: etc}, nil
}

func (b base) mounts() []sandbox.Mount {
	var mounts []sandbox.Mount
	for _, part := range usrParts {
		source := filepath.Join(b.usr, part)
		if info, err := os.Stat(source); err == nil && info.IsDir() {
			mounts = append(mounts, sandbox.Mount{Source: source, Target: "/usr/" + part})
		}
	}
	return append(mounts, sandbox.Mount{Source: b.etc, Target: "/etc"})
}

// symlinks returns the links of the root into /usr.
//
// /lib64 is where the libraries are, whatever the distribution calls that
// directory: AWS's LD_LIBRARY_PATH begins with it. So the system's libraries
// are found there, as on AWS before those of the function and its layers, and
// at the first try.
func (b base) symlinks() []sandbox.Symlink {
	return []sandbox.Symlink{
		{Path: "/bin", Dest: "usr/bin"},
		{Path: "/sbin", Dest: "usr/bin"},
		{Path: "/lib", Dest: "usr/lib"},
		{Path: "/lib64", Dest: "usr/" + b.libraries()},
	}
}

// libraries returns the directory below /usr that has the dynamic loader and
// the C library.
func (b base) libraries() string {
	loaders, _ := filepath.Glob(filepath.Join(b.usr, "lib", "*-linux-gnu", "ld-linux-*.so.*"))
	if len(loaders) > 0 {
		return "lib/" + filepath.Base(filepath.Dir(loaders[0]))
	}
	if _, err := os.Stat(filepath.Join(b.usr, "lib64")); err == nil {
		return "lib64"
	}
	return "lib"
}

// caBundles are where distributions keep the certificates of the public CAs.
var caBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, Amazon Linux
	"/etc/ssl/ca-bundle.pem",                            // SUSE
}

// etcFiles returns the files of the sandbox's /etc. resolv.conf and hosts are
// places to mount an environment's own files on.
//
// more holds files of a runtime's own.
func etcFiles(more tree) tree {
	files := tree{
		"passwd":        file(fmt.Sprintf("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n%s:x:%d:%d::/home/%s:/sbin/nologin\n", user, UserID, GroupID, user)),
		"group":         file(fmt.Sprintf("root:x:0:\ntty:x:5:\nnobody:x:65534:\n%s:x:%d:\n", user, GroupID)),
		"hosts":         file("127.0.0.1 localhost localhost.localdomain\n::1 localhost localhost.localdomain\n"),
		"resolv.conf":   file(""),
		"nsswitch.conf": file("passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"),
		"os-release":    file("NAME=\"Lapwing\"\nID=lapwing\nID_LIKE=\"debian\"\nPRETTY_NAME=\"Lapwing function environment\"\n"),
		"localtime":     link("/usr/share/zoneinfo/UTC"),
		"services":      file("http 80/tcp\nhttps 443/tcp\ndomain 53/tcp\ndomain 53/udp\n"),
		"protocols":     file("icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n"),
		"ld.so.conf":    file("include /etc/ld.so.conf.d/*.conf\n"),
	}
	for _, bundle := range caBundles {
		if pem, err := os.ReadFile(bundle); err == nil {
			files["ssl/certs/ca-certificates.crt"] = entry{data: pem}
			files["ssl/cert.pem"] = link("certs/ca-certificates.crt")
			// Where Amazon Linux has them, which some functions name.
			files["pki/tls/certs/ca-bundle.crt"] = link("/etc/ssl/certs/ca-certificates.crt")
			// And those of Java, which Debian's own looks for elsewhere.
			files["pki/java/cacerts"] = entry{data: javaKeyStore(pem)}
			files["ssl/certs/java/cacerts"] = link("/etc/pki/java/cacerts")
			break
		}
	}
	// OpenSSL may look a certificate up by the hash of its subject.
	hashed, _ := filepath.Glob("/etc/ssl/certs/[0-9a-f]*.[0-9]")
	for _, path := range hashed {
		if pem, err := os.ReadFile(path); err == nil {
			files["ssl/certs/"+filepath.Base(path)] = entry{data: pem}
		}
	}
	// The libraries' cache and, for programs such as awk, the alternatives are
	// those of the host's /usr.
	if cache, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		files["ld.so.cache"] = entry{data: cache}
	}
	alternatives, _ := filepath.Glob("/etc/alternatives/*")
	for _, path := range alternatives {
		dest, err := os.Readlink(path)
		if err == nil && (strings.HasPrefix(dest, "/usr/bin/") || strings.HasPrefix(dest, "/usr/lib/")) {
			files["alternatives/"+filepath.Base(path)] = link(dest)
		}
	}
	maps.Copy(files, more)
	return files
}
