// Package network gives every sandbox a network of its own: through the host to
// the internet, and to the AWS endpoint of Lapwing, and nowhere else. It never
// reaches the host's own addresses and services, other functions, private
// networks (unless the operator opens them) or link-local addresses such as the
// metadata service of a cloud.
//
//	sandbox netns          router netns (one a data directory)        host netns
//	eth0 ──── veth /31 ──── s1 ┐                       NAT     NAT
//	eth0 ──── veth /31 ──── s2 ┼─ filter ─ uplink ──── veth /31 ──── filter ── default route
//	                           └─ lo: AWS endpoint, DNS relay
//
// The addresses of sandboxes exist in the router only; the host sees one /31.
// Namespaces are held by descriptors alone and vanish with the process, however
// it ends. On the host there are one veth, one nftables table (both named after
// the data directory and removed at Close or by the next Open) and, where
// forwarding was off, the forwarding setting of the veth and of the interfaces
// of default routes; see host.go.
package network

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"

	"lapwing.dev/lapwing/internal/sandbox"
)

// Egress says whether functions reach anything besides the AWS endpoint.
type Egress string

// The values of Egress.
const (
	EgressOn  Egress = "on"
	EgressOff Egress = "off"
)

const (
	// EndpointPort is the port of the AWS endpoint as functions see it.
	EndpointPort = 4566
	// Zone is the name of the endpoint, and what is under it is the endpoint
	// too (S3 buckets in virtual-host style).
	Zone = "lapwing.internal"

	dnsPort = 53
)

// endpointAddr is the one address of the router that sandboxes may speak to.
// Lambda's own Runtime API has this address.
var endpointAddr = netip.MustParseAddr("169.254.100.1")

// Options configures a Pool.
type Options struct {
	// Dir is where resolv.conf and hosts of the sandboxes are written; it must
	// be of this process alone. What exists on the host is named after it.
	Dir string
	// Egress is EgressOn where empty.
	Egress Egress
	// Allow lists private networks that functions may reach besides the
	// internet. Loopback, link-local and multicast addresses stay closed.
	Allow []netip.Prefix
	// Range holds the addresses of the sandboxes, two each; it may be used
	// elsewhere, but functions cannot reach it there. 100.64.0.0/16 where zero.
	Range netip.Prefix
	// Resolvers are the DNS servers that functions' queries go to; those of
	// the host's /etc/resolv.conf where empty.
	Resolvers []netip.AddrPort
	// Prepare is how many networks are kept ready; 8 where zero.
	Prepare int
	Logger  *slog.Logger

	hostNS *namespace // for tests: the network namespace to take for the host
}

// Attachment is the network of one sandbox.
type Attachment struct {
	sandbox.Network
	Mounts   []sandbox.Mount // /etc/resolv.conf and /etc/hosts
	Endpoint string          // URL of the AWS endpoint

	pool *Pool
	ns   *namespace
	slot int
	once sync.Once
}

// Release removes the network, which no sandbox may use any more.
func (a *Attachment) Release() {
	a.once.Do(func() {
		a.ns.Close()
		a.pool.slots <- a.slot
	})
}

// Pool makes networks and keeps some ready. It is safe for concurrent use.
type Pool struct {
	opts   Options
	log    *slog.Logger
	host   *host // nil without egress
	router *router
	relay  *relay
	mounts []sandbox.Mount
	shapes bool // the kernel can limit bandwidth

	slots chan int         // free numbers, the longest unused first
	ready chan *Attachment // prepared
	want  chan chan result // callers for whom nothing was prepared
	ctx   context.Context  // ends with the pool
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

var errClosed = errors.New("network: closed")

type result struct {
	a   *Attachment
	err error
}

// Open makes the router, connects it to the host where functions are to reach
// the internet, and begins to prepare networks. It needs root. What an earlier
// process left behind for the same directory is removed first.
func Open(opts Options) (_ *Pool, err error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	p := &Pool{
		opts:  opts,
		log:   opts.Logger,
		ready: make(chan *Attachment, opts.Prepare),
		want:  make(chan chan result),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = fmt.Errorf("network: %w", err)
			p.Close()
		}
	}()
	if os.Getuid() != 0 {
		return p, errors.New("needs root")
	}
	if p.mounts, err = writeFiles(opts.Dir); err != nil {
		return p, err
	}
	if p.router, err = newRouter(opts); err != nil {
		return p, err
	}
	if p.shapes, err = p.router.canShape(); err != nil {
		return p, err
	}
	if !p.shapes {
		p.log.Warn("the bandwidth of functions is not limited: this kernel lacks sch_tbf")
	}
	if opts.Egress == EgressOn {
		if p.host, err = newHost(opts, p.router); err != nil {
			return p, fmt.Errorf("egress through the host (turn it off to do without): %w", err)
		}
	} else {
		p.log.Info("functions have no internet access: egress is off")
	}
	if p.relay, err = newRelay(opts, p.router); err != nil {
		return p, err
	}
	n := min(1<<(31-opts.Range.Bits()), 1<<15)
	p.slots = make(chan int, n)
	for i := range n {
		p.slots <- i
	}
	for range min(4, runtime.NumCPU()) {
		p.wg.Go(p.prepare)
	}
	return p, nil
}

func (o *Options) complete() error {
	if o.Dir == "" {
		return errors.New("no directory")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Prepare == 0 {
		o.Prepare = 8
	}
	if !o.Range.IsValid() {
		o.Range = netip.MustParsePrefix("100.64.0.0/16")
	}
	o.Range = o.Range.Masked()
	switch {
	case !o.Range.Addr().Is4() || o.Range.Bits() > 28 || o.Range.Contains(endpointAddr):
		return fmt.Errorf("range %s: want IPv4 of at most 28 bits, without %s", o.Range, endpointAddr)
	case o.Egress == "":
		o.Egress = EgressOn
	case o.Egress != EgressOn && o.Egress != EgressOff:
		return fmt.Errorf("egress %q: want on or off", o.Egress)
	}
	for _, a := range o.Allow {
		if !a.Addr().Is4() {
			return fmt.Errorf("allowed network %s: want IPv4", a)
		}
	}
	return nil
}

// id is what tells this data directory's things on the host from those of
// others.
func (o *Options) id() string {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		dir = o.Dir
	}
	h := fnv.New32a()
	h.Write([]byte(dir))
	return fmt.Sprintf("%08x", h.Sum32())
}

// Acquire returns a network of its own for a new sandbox. Each direction is
// limited to bytes a second after a generous burst; 0 means no limit.
func (p *Pool) Acquire(ctx context.Context, bytesPerSecond int64) (*Attachment, error) {
	a, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	if bytesPerSecond > 0 && p.shapes {
		if err := p.limitBandwidth(a, bytesPerSecond); err != nil {
			a.Release()
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	return a, nil
}

// take returns a prepared network, or the next to be made.
func (p *Pool) take(ctx context.Context) (*Attachment, error) {
	select {
	case a := <-p.ready:
		return a, nil
	default:
	}
	reply := make(chan result, 1)
	select {
	case a := <-p.ready:
		return a, nil
	case p.want <- reply:
		r := <-reply
		if r.err != nil {
			return nil, fmt.Errorf("network: %w", r.err)
		}
		return r.a, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-p.ctx.Done():
		return nil, errClosed
	}
}

// prepare makes networks until the pool is closed, first for those who wait.
// Its thread moves from namespace to namespace and ends with it.
func (p *Pool) prepare() {
	runtime.LockOSThread()
	var made *Attachment
	for {
		if made == nil {
			var err error
			if made, err = p.make(); err != nil {
				// Try again for the next one who asks, who is then told.
				select {
				case reply := <-p.want:
					a, err := p.make()
					reply <- result{a, err}
				case <-p.ctx.Done():
					return
				}
				continue
			}
		}
		select {
		case reply := <-p.want:
			reply <- result{a: made}
		case p.ready <- made:
		case <-p.ctx.Done():
			made.Release()
			return
		}
		made = nil
	}
}

// make makes one network on the calling thread, which it moves into it.
func (p *Pool) make() (*Attachment, error) {
	for range cap(p.slots) {
		var slot int
		select {
		case slot = <-p.slots:
		default:
			return nil, sandbox.ErrNoCapacity
		}
		gateway := addrAt(p.opts.Range, 2*slot)
		n := sandbox.Network{
			Interface: "eth0",
			Address:   netip.PrefixFrom(gateway.Next(), 31),
			Gateway:   gateway,
			MTU:       p.router.mtu,
		}
		ns, err := p.router.attach(linkName(slot), n)
		if err != nil {
			p.slots <- slot
			if errors.Is(err, os.ErrExist) {
				continue // the kernel has not removed the last one yet
			}
			return nil, err
		}
		n.NamespacePath = ns.Path()
		return &Attachment{
			Network:  n,
			Mounts:   p.mounts,
			Endpoint: "http://" + p.endpoint().String(),
			pool:     p, ns: ns, slot: slot,
		}, nil
	}
	return nil, sandbox.ErrNoCapacity
}

// linkName is the router's name for the link of a slot.
func linkName(slot int) string { return "s" + strconv.Itoa(slot) }

func (p *Pool) endpoint() netip.AddrPort { return netip.AddrPortFrom(endpointAddr, EndpointPort) }

// Listen returns the listener behind the AWS endpoint of functions. The
// remote address of a connection is that of the sandbox.
func (p *Pool) Listen() (net.Listener, error) {
	var l net.Listener
	err := p.router.ns.Do(func() (err error) {
		l, err = net.Listen("tcp4", p.endpoint().String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network: endpoint: %w", err)
	}
	return l, nil
}

// Close removes everything, from the host too. Sandboxes must have ended.
func (p *Pool) Close() error {
	p.stop()
	p.wg.Wait()
	for {
		select {
		case a := <-p.ready:
			a.Release()
			continue
		default:
		}
		break
	}
	var errs []error
	if p.relay != nil {
		p.relay.Close()
	}
	if p.host != nil {
		errs = append(errs, p.host.Close())
	}
	if p.router != nil {
		p.router.Close()
	}
	return errors.Join(errs...)
}

// addrAt returns the n-th address of an IPv4 prefix.
func addrAt(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// writeFiles writes the files that every sandbox sees.
func writeFiles(dir string) ([]sandbox.Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var mounts []sandbox.Mount
	for _, f := range []struct{ target, text string }{
		{"/etc/resolv.conf", fmt.Sprintf("nameserver %s\noptions timeout:5 attempts:2\n", endpointAddr)},
		{"/etc/hosts", fmt.Sprintf("127.0.0.1 localhost sandbox.localdomain sandbox\n%s %s\n", endpointAddr, Zone)},
	} {
		path := filepath.Join(dir, filepath.Base(f.target))
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
			return nil, err
		}
		mounts = append(mounts, sandbox.Mount{Source: path, Target: f.target})
	}
	return mounts, nil
}
