package network

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A sandbox's bandwidth is limited by a token bucket for each direction: in its
// own namespace for what it sends, and at the router's end of its link for what
// it receives.
const (
	// burst is how much a full bucket holds, as the time that it takes to fill:
	// who loads a model at the start, and is quiet then, does not notice a limit.
	burst = 4 * time.Second
	// queue is how long a packet waits for tokens before it is dropped.
	queue = 100 * time.Millisecond
	// minQueue and minBurst, in bytes, are room for segments of 64 KiB, which
	// pass in one piece: TCP needs more than a handful of them under way.
	minQueue = 512 << 10
	minBurst = 128 << 10
)

// limitBandwidth limits both directions of a network to bytes a second each.
func (p *Pool) limitBandwidth(a *Attachment, bytesPerSecond int64) error {
	inside, err := a.ns.netlink()
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := shape(inside, a.Interface, bytesPerSecond); err != nil {
		return err
	}
	p.router.mu.Lock()
	defer p.router.mu.Unlock()
	return shape(p.router.nl, linkName(a.slot), bytesPerSecond)
}

// shape limits what leaves by a link to bytes a second.
func shape(nl *netlink.Handle, name string, bytesPerSecond int64) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := nl.QdiscReplace(bucket(link, bytesPerSecond)); err != nil {
		return fmt.Errorf("bandwidth of %s: %w", name, err)
	}
	return nil
}

func bucket(link netlink.Link, bytesPerSecond int64) *netlink.Tbf {
	rate := uint64(bytesPerSecond)
	// The kernel counts both in 32 bits.
	worth := func(d time.Duration, least uint64) uint32 {
		return uint32(min(max(rate*uint64(d.Milliseconds())/1000, least), math.MaxUint32))
	}
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
		Rate:       rate,
		Limit:      worth(queue, minQueue),
		Buffer:     netlink.Xmittime(rate, worth(burst, minBurst)),
	}
}

// canShape tells whether this kernel has the token bucket.
func (r *router) canShape() (bool, error) {
	lo, err := r.nl.LinkByName("lo")
	if err != nil {
		return false, err
	}
	b := bucket(lo, 1<<20)
	err = r.nl.QdiscAdd(b)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("token bucket: %w", err)
	}
	return true, r.nl.QdiscDel(b)
}
