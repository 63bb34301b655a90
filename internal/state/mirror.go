package state

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// A store can be the mirror of another one, its hub, in another process and
// mostly in another place. It joins the hub as a NATS leaf node, and each of its
// collections is a JetStream mirror of the hub's of the same name: the same
// records at the same revisions, durable here too, readable whether or not the
// hub can be reached, and never written.
//
// A leaf may do nothing at the hub but that. The hub makes a durable consumer for
// each collection that it grants to a leaf; the leaf may reset these, acknowledge
// what they deliver, and receive it on subjects of its own. It cannot make
// consumers, since whoever can may have any record delivered to any subject.

const (
	// hubDomain is the JetStream domain of a hub, leafDomain begins those of leaves.
	hubDomain  = "core"
	leafDomain = "leaf-"
	// deliverSubject begins the subjects on which a leaf gets its mirrors' messages.
	deliverSubject = "lapwing.mirror."

	// Between hub and leaf, in each direction: a connection over which nothing
	// comes back for some three seconds is given up, and the leaf dials again
	// several times a second.
	leafPing        = time.Second
	leafPingsOut    = 2
	leafRedial      = 200 * time.Millisecond
	leafDialTimeout = time.Second
	leafTLSTimeout  = 2 * time.Second

	// mirrorPending is how many messages may be on their way to a leaf.
	mirrorPending = 1000
	// mirrorMarkerTTL is markerTTL at a hub: a leaf that is away for longer may
	// miss a deletion, which its Mark shows.
	mirrorMarkerTTL = 30 * 24 * time.Hour
)

// ErrReadOnly is what writes to a mirror return.
var ErrReadOnly = errors.New("this is a mirror; write to the hub")

// leafName is what leaves may be called: the name of a consumer, and a token of
// subjects.
var leafName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,31}$`)

// Hub lets other stores mirror collections of this one.
type Hub struct {
	// Listen is the HOST:PORT at which leaf nodes connect; port 0 takes a free one.
	Listen string
	// TLS must ask for client certificates and verify them.
	TLS *tls.Config
	// Leaf returns the name of the leaf that shows a (verified) certificate, or an
	// error where it may not connect.
	Leaf func(*x509.Certificate) (string, error)
}

// Leaf makes a store a mirror.
type Leaf struct {
	// Name is that by which the hub knows the leaf. It stays the same for as long
	// as the directory is used.
	Name string
	// Hub is the HOST:PORT of the hub.
	Hub string
	// TLS has the client certificate, and says whom to trust.
	TLS *tls.Config
}

// source says where a collection of a leaf comes from.
func (l *Leaf) source(collection string) *jetstream.StreamSource {
	return &jetstream.StreamSource{
		Name:     "KV_" + collection,
		External: &jetstream.ExternalStream{APIPrefix: "$JS." + hubDomain + ".API"},
		Consumer: &jetstream.StreamConsumerSource{Name: l.Name, DeliverSubject: mirrorSubject(l.Name, collection)},
	}
}

func mirrorSubject(leaf, collection string) string { return deliverSubject + leaf + "." + collection }

// leafPermissions are all that a leaf may do at the hub.
func leafPermissions(leaf string) *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS." + hubDomain + ".API.CONSUMER.RESET.*." + leaf,
			"$JS.FC.*." + leaf + ".>", // flow control, by which mirrors acknowledge
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			deliverSubject + leaf + ".>",
			"$JSC.R." + hubDomain + ".*.*." + leaf + ".*", // replies
		}},
	}
}

// hub is the state of a Hub that serves.
type hub struct {
	Hub
	log logger

	mu          sync.Mutex
	server      *server.Server
	connections map[string]uint64 // the latest of each leaf
}

type logger interface{ Warn(msg string, args ...any) }

// Check implements server.Authentication.
func (h *hub) Check(c server.ClientAuthentication) bool {
	switch c.Kind() {
	case server.CLIENT: // of this process: the server listens for no others
		return true
	case server.LEAF:
	default:
		return false
	}
	tls := c.GetTLSConnectionState()
	if tls == nil || len(tls.VerifiedChains) == 0 {
		return false
	}
	name, err := h.Leaf(tls.PeerCertificates[0])
	if err == nil && !leafName.MatchString(name) {
		err = fmt.Errorf("%q is no name for a leaf node", name)
	}
	if err != nil {
		h.log.Warn("state: a leaf node was refused", "remote", c.RemoteAddress(), "error", err)
		return false
	}
	c.RegisterUser(&server.User{Username: name, Permissions: leafPermissions(name)})
	h.mu.Lock()
	h.connections[name] = c.GetID()
	h.mu.Unlock()
	return true
}

// disconnect ends the connection of a leaf, if there is one.
func (h *hub) disconnect(leaf string) {
	h.mu.Lock()
	id, ok := h.connections[leaf]
	delete(h.connections, leaf)
	srv := h.server
	h.mu.Unlock()
	if ok && srv != nil {
		_ = srv.DisconnectClientByID(id) // it may have gone by itself
	}
}

// mirrorOptions adds to the server's options what makes it a hub or a leaf.
func (s *Store) mirrorOptions(o *server.Options) error {
	if s.hub == nil && s.leaf == nil {
		return nil
	}
	o.PingInterval, o.MaxPingsOut = leafPing, leafPingsOut
	// Replies name the leaf in their subjects, so that each gets its own only.
	o.FeatureFlags = map[string]bool{server.FeatureFlagJsAPIReplyFormatV2: true}
	if s.hub != nil {
		host, port, err := splitPort(s.hub.Listen)
		if err != nil {
			return err
		}
		if port == 0 {
			port = server.RANDOM_PORT
		} else if l, err := net.Listen("tcp", s.hub.Listen); err != nil { // the server would only log it
			return err
		} else if err := l.Close(); err != nil {
			return err
		}
		o.JetStreamDomain = hubDomain
		o.CustomClientAuthentication = s.hub
		o.LeafNode = server.LeafNodeOpts{
			Host: host, Port: port, NoAdvertise: true, IsolateLeafnodeInterest: true,
			TLSConfig: s.hub.TLS, TLSTimeout: leafTLSTimeout.Seconds(), TLSHandshakeFirst: true, AuthTimeout: (2 * leafTLSTimeout).Seconds(),
		}
		return nil
	}
	if !leafName.MatchString(s.leaf.Name) {
		return fmt.Errorf("%q is no name for a leaf node", s.leaf.Name)
	}
	if _, _, err := splitPort(s.leaf.Hub); err != nil {
		return err
	}
	o.ServerName = s.leaf.Name
	o.JetStreamDomain = leafDomain + s.leaf.Name
	o.LeafNode = server.LeafNodeOpts{
		ReconnectInterval: leafRedial,
		Remotes: []*server.RemoteLeafOpts{{
			URLs: []*url.URL{{Scheme: "tls", Host: s.leaf.Hub}}, TLS: true, TLSConfig: s.leaf.TLS, TLSHandshakeFirst: true,
			TLSTimeout: leafTLSTimeout.Seconds(), DialTimeout: leafDialTimeout, FirstInfoTimeout: leafTLSTimeout,
		}},
	}
	return nil
}

func splitPort(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil {
		return "", 0, fmt.Errorf("address of a hub: %w", err)
	}
	return host, port, nil
}

// HubAddress returns where leaf nodes connect, nil where the store is no hub.
func (s *Store) HubAddress() net.Addr {
	if s.hub == nil {
		return nil
	}
	// The server tells its port in its options, once it listens.
	v, err := s.server.Varz(nil)
	if err != nil {
		return nil
	}
	return &net.TCPAddr{IP: net.ParseIP(v.LeafNode.Host), Port: v.LeafNode.Port}
}

// Grant lets a leaf mirror collections, which are open here. It is durable, and
// may be repeated.
func (s *Store) Grant(ctx context.Context, leaf string, collections ...string) error {
	if s.hub == nil || !leafName.MatchString(leaf) {
		return fmt.Errorf("state: grant collections to leaf node %q: no hub, or no name", leaf)
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for _, c := range collections {
		_, err := s.js.CreateOrUpdatePushConsumer(ctx, "KV_"+c, jetstream.ConsumerConfig{
			Durable: leaf, DeliverSubject: mirrorSubject(leaf, c),
			AckPolicy: jetstream.AckFlowControlPolicy, MaxAckPending: mirrorPending, MaxDeliver: -1,
			FlowControl: true, IdleHeartbeat: time.Second,
		})
		if err != nil {
			return fmt.Errorf("state: grant %s to leaf node %s: %w", c, leaf, err)
		}
	}
	return nil
}

// Revoke takes back what was granted to a leaf, and ends its connection: Hub.Leaf
// is to refuse another one.
func (s *Store) Revoke(ctx context.Context, leaf string, collections ...string) error {
	if s.hub == nil {
		return nil
	}
	s.hub.disconnect(leaf)
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var errs []error
	for _, c := range collections {
		if err := s.js.DeleteConsumer(ctx, "KV_"+c, leaf); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			errs = append(errs, fmt.Errorf("state: revoke %s of leaf node %s: %w", c, leaf, err))
		}
	}
	return errors.Join(errs...)
}

// RestartMirrors has the mirrors of a leaf begin anew, from what they hold.
// JetStream's mirrors wait between their attempts, in the end for two minutes,
// and do not see by themselves that the hub can be reached again; who does calls
// this. Readers notice nothing.
func (s *Store) RestartMirrors(ctx context.Context) error {
	if s.leaf == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.server.ShutdownJetStream(); err != nil {
		return fmt.Errorf("state: restart mirrors: %w", err)
	}
	if err := s.server.EnableJetStream(s.jetStreamConfig()); err != nil {
		return fmt.Errorf("state: restart mirrors: %w", err)
	}
	for name, c := range s.collections {
		if err := c.restart(ctx); err != nil {
			return fmt.Errorf("state: restart the mirror %s: %w", name, err)
		}
	}
	return nil
}

// jetStreamConfig is what the server made of its options at its start.
func (s *Store) jetStreamConfig() *server.JetStreamConfig {
	return &server.JetStreamConfig{StoreDir: s.natsDir, SyncAlways: true, Domain: leafDomain + s.leaf.Name, Strict: true}
}

// restart has the collection's watch begin anew.
func (c *Collection[T]) restart(ctx context.Context) error {
	again := make(chan struct{})
	select {
	case c.again <- again:
	case <-c.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-again:
		return nil
	case <-c.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// rewatch begins a new watch and publishes what is different from what the model
// holds. It tries until it succeeds; nil: ctx has ended.
func (c *Collection[T]) rewatch(ctx context.Context, kv jetstream.KeyValue) jetstream.KeyWatcher {
	for ctx.Err() == nil {
		watcher, err := kv.WatchAll(ctx)
		if err == nil {
			if err = c.reload(watcher); err == nil {
				return watcher
			}
			_ = watcher.Stop()
		}
		if ctx.Err() == nil {
			c.store.log.Error("state: a collection is not followed any more; trying again", "collection", c.name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// reload takes in what the bucket holds now, where the model holds something
// earlier.
func (c *Collection[T]) reload(watcher jetstream.KeyWatcher) error {
	there := map[string]bool{}
	for entry := range watcher.Updates() {
		if entry == nil {
			c.dropOthers(there)
			return nil
		}
		change, err := decode[T](entry)
		if err != nil {
			return err
		}
		if !change.Deleted {
			there[change.Key] = true
		}
		held, ok := c.model.tree.Get(change.Item)
		if ok == change.Deleted || ok && held.Revision != change.Revision {
			c.model.apply(change)
			c.model.publish(change)
		}
	}
	return ErrClosed
}

// dropOthers drops the records that are not there any more, and whose marks of
// deletion are gone too.
func (c *Collection[T]) dropOthers(there map[string]bool) {
	var gone []Item[T]
	c.model.tree.Ascend(func(i Item[T]) bool {
		if !there[i.Key] {
			gone = append(gone, i)
		}
		return true
	})
	for _, i := range gone {
		change := Change[T]{Item: Item[T]{Key: i.Key, Revision: c.model.revision}, Deleted: true}
		c.model.apply(change)
		c.model.publish(change)
	}
}

// Mark says what a collection holds, to compare with a mirror of it.
type Mark struct {
	// Revision is the latest that readers see.
	Revision uint64
	// Records is their number, and Sum one over their keys and revisions: equal
	// where these are, and different, but for a chance of 2⁻⁶⁴, where not.
	Records int
	Sum     uint64
}

// Holds tells whether a mirror with the mark m has all that the hub had at mark h.
// After its last record was deleted long ago, a hub's revision can be one that no
// new mirror reaches.
func (m Mark) Holds(h Mark) bool {
	return m.Revision >= h.Revision || m.Records == h.Records && m.Sum == h.Sum
}

// Mark returns the collection's mark.
func (c *Collection[T]) Mark() Mark {
	v := c.model.current.Load()
	return Mark{Revision: v.revision, Records: v.tree.Len(), Sum: v.sum}
}

// Marks returns the marks of all open collections by name.
func (s *Store) Marks() map[string]Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	marks := make(map[string]Mark, len(s.collections))
	for name, c := range s.collections {
		marks[name] = c.Mark()
	}
	return marks
}

// Renew makes the mirrors of a leaf anew from all that the hub has: for those that
// cannot be right any more, because the leaf was away for longer than marks of
// deletions stay, or the hub was restored from a backup. Readers see what there
// was until all of the new is there, which want describes by the hub's marks.
func (s *Store) Renew(ctx context.Context, want map[string]Mark) error {
	if s.leaf == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, mark := range want {
		c, ok := s.collections[name]
		if !ok || s.closed {
			continue
		}
		if err := s.renew(ctx, name, mark); err != nil {
			return fmt.Errorf("state: renew the mirror %s: %w", name, err)
		}
		if err := c.restart(ctx); err != nil {
			return fmt.Errorf("state: renew the mirror %s: %w", name, err)
		}
	}
	return nil
}

func (s *Store) renew(ctx context.Context, name string, mark Mark) error {
	if err := s.js.DeleteStream(ctx, "KV_"+name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	stream, err := s.js.CreateStream(ctx, s.streamConfig(name))
	for ; err == nil; err = sleep(ctx, 20*time.Millisecond) {
		info, err := stream.Info(ctx)
		if err != nil {
			return err
		}
		if info.State.LastSeq >= mark.Revision || int(info.State.NumSubjects) >= mark.Records && info.Mirror != nil && info.Mirror.Lag == 0 && info.State.LastSeq > 0 {
			return nil
		}
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
