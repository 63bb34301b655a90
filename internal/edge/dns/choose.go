package dns

import (
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
)

// chooser picks locations for viewers.
type chooser struct {
	config  *Config
	lengths []int    // of the prefixes of subnets, the longest first
	names   []string // of locations, in order
	healthy func(location string) bool
	region  func(location string) string
}

func newChooser(c *Config, healthy func(string) bool, region func(string) string) *chooser {
	ch := &chooser{config: c, healthy: healthy, region: region}
	for p := range c.Subnets {
		if !slices.Contains(ch.lengths, p.Bits()) {
			ch.lengths = append(ch.lengths, p.Bits())
		}
	}
	slices.Sort(ch.lengths)
	slices.Reverse(ch.lengths)
	for name := range c.Locations {
		ch.names = append(ch.names, name)
	}
	slices.Sort(ch.names)
	return ch
}

// choose returns the location for viewers of a network that has an address of the
// family that is asked for, and how many bits of the network it depended on: the
// nearest that is well and in the price class, or else the nearest that is well,
// since a class is to save costs and not to turn viewers away. ok is false where no
// location has such an address.
func (c *chooser) choose(viewers netip.Prefix, class string, v6 bool) (name string, bits int, ok bool) {
	able := func(name string) bool { return len(c.config.Locations[name].of(v6)) > 0 }
	order, bits := c.order(viewers)
	order = slices.DeleteFunc(order, func(name string) bool { return !able(name) })
	slices.SortStableFunc(order, func(a, b string) int { return c.rank(a, class) - c.rank(b, class) })
	if len(order) == 0 {
		return "", bits, false
	}
	return order[0], bits, true // where none is known to be well, one may be
}

// rank puts locations that are well first, and those of a price class before others.
func (c *chooser) rank(name, class string) (rank int) {
	if !c.healthy(name) {
		rank += 2
	}
	if !covered(class, c.region(name)) {
		rank++
	}
	return rank
}

// order returns the locations for viewers of a network, the best first.
func (c *chooser) order(viewers netip.Prefix) ([]string, int) {
	rest := c.byWeight(viewers)
	for _, bits := range c.lengths {
		if bits > viewers.Bits() {
			continue
		}
		p, err := viewers.Addr().Prefix(bits)
		if err != nil {
			continue // of the other family
		}
		if near, ok := c.config.Subnets[p]; ok {
			order := slices.Clone(near)
			for _, name := range rest {
				if !slices.Contains(near, name) {
					order = append(order, name)
				}
			}
			return order, bits
		}
	}
	return rest, viewers.Bits()
}

// byWeight orders locations by weighted rendezvous hashing: a network keeps its
// location while that is well, and networks are spread by the weights.
func (c *chooser) byWeight(viewers netip.Prefix) []string {
	score := make(map[string]float64, len(c.names))
	for _, name := range c.names {
		h := fnv.New64a()
		_, _ = h.Write(viewers.Addr().AsSlice()) // it does not fail
		_, _ = h.Write([]byte(name))
		x := mix(h.Sum64())
		score[name] = -c.config.Locations[name].weight() / math.Log((float64(x>>11)+0.5)/(1<<53))
	}
	order := slices.Clone(c.names)
	slices.SortStableFunc(order, func(a, b string) int {
		switch {
		case score[a] > score[b]:
			return -1
		case score[a] < score[b]:
			return 1
		}
		return 0
	})
	return order
}

// mix spreads FNV's bits, whose high ones say little of the last bytes.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// of returns a location's addresses of a family.
func (l Location) of(v6 bool) []netip.Addr {
	var of []netip.Addr
	for _, a := range l.Addresses {
		if a.Unmap().Is4() != v6 {
			of = append(of, a.Unmap())
		}
	}
	return of
}
