package conns

import (
	"errors"
	"log/slog"
	"net"
	"time"
)

// Accept calls take for the connections of l, one after the other, until l ends. It
// returns nil where closed then says that the server has ended it.
func Accept(l net.Listener, log *slog.Logger, closed func() bool, take func(net.Conn)) error {
	for delay := time.Millisecond; ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			delay = time.Millisecond
			take(c)
		case closed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Such as too many open files, which is over after a while.
			log.Warn("a connection was not accepted", "error", err)
			time.Sleep(delay)
			delay = min(2*delay, time.Second)
		}
	}
}
