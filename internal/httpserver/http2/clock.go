package http2

import "time"

// clock is what the time limits of a connection are measured by. It belongs to the
// goroutine that reads, and what it shares to the connection's lock.
type clock struct {
	heard, asked bool // since the last look: something came; a request came
	heardAt      time.Time
	pingedAt     time.Time // a PING is not answered yet; zero: none
	idleSince    time.Time // the last request came or ended
	sweepAt      time.Time // when the streams are looked at next
	goodbye      time.Time // when it is not waited any more for requests under way
	wakeAt       time.Time // the read deadline that is set
}

func (k *clock) begin(now time.Time) { k.heardAt, k.idleSince = now, now }

// keepTime ends what has taken too long, and sets when the next look is due. It
// returns why the connection is to end. c.mu is held.
func (c *conn) keepTime(now time.Time) error {
	k := &c.clock
	if k.heard {
		k.heardAt, k.pingedAt = now, time.Time{}
	}
	if k.asked {
		k.idleSince = now
	}
	k.heard, k.asked = false, false
	if c.err != nil {
		return c.err
	}
	if c.goodbye != nil && !now.Before(k.goodbye) {
		c.farewell()
	}
	var due time.Time
	within := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	if !c.begun.IsZero() {
		limit := c.limits.header
		if c.w-c.r > 3 && c.buf[c.r+3] == frameData && c.settled {
			limit = c.limits.body
		}
		if end := c.begun.Add(limit); now.Before(end) {
			within(end)
		} else {
			return errLate
		}
	}
	if c.goodbye != nil {
		within(k.goodbye)
	}
	if len(c.streams) == 0 {
		if c.leaving && c.goodbye == nil {
			return errDone
		}
		end := k.idleSince.Add(c.limits.idle)
		if !now.Before(end) {
			return errIdle
		}
		within(end)
	} else {
		if err := c.lookAfterStreams(now); err != nil {
			return err
		}
		within(k.sweepAt)
		if k.pingedAt.IsZero() {
			within(k.heardAt.Add(c.limits.idle))
		} else {
			within(k.pingedAt.Add(pingTime))
		}
	}
	if k.wakeAt.IsZero() || k.wakeAt.After(due) || !k.wakeAt.After(now) {
		k.wakeAt = due
		return c.nc.SetReadDeadline(due)
	}
	return nil
}

// lookAfterStreams ends streams on which nothing goes on, and asks a viewer that is
// silent whether it is there.
func (c *conn) lookAfterStreams(now time.Time) error {
	k := &c.clock
	if !now.Before(k.sweepAt) {
		k.sweepAt = now.Add(min(c.limits.body, c.limits.write)/4 + 1)
		for _, st := range c.streams {
			c.sweep(st, now)
		}
		c.flush()
	}
	switch {
	case k.pingedAt.IsZero() && now.Sub(k.heardAt) >= c.limits.idle:
		k.pingedAt = now
		c.out = appendPing(c.out, 0, []byte("alive?  "))
		c.flush()
	case !k.pingedAt.IsZero() && now.Sub(k.pingedAt) >= pingTime:
		return errDead
	}
	return nil
}

// budget bounds how much a viewer may ask for that costs us more than it: each
// second gives back a part of it.
type budget struct {
	spent int
	at    time.Time
}

const (
	maxSpent    = 10_000
	perSecond   = 1000
	costControl = 1  // of PING, SETTINGS, PRIORITY, empty DATA
	costReset   = 10 // of a request that is taken back, or an error of a stream
)

// spend tells whether there is as much left.
func (b *budget) spend(n int, now time.Time) bool {
	if d := now.Sub(b.at); d > time.Millisecond {
		b.spent = max(0, b.spent-int(min(d, time.Minute)*perSecond/time.Second))
		b.at = now
	}
	b.spent += n
	return b.spent <= maxSpent
}
