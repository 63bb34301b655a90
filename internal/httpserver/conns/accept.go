package conns

import (
	"errors"
	"log/slog"
	"net"
	"time"
)

// Accept calls serve, each time in a goroutine of its own, for the connections of l,
// until l ends. It returns nil where closed then says that the server has ended it.
func Accept(l net.Listener, log *slog.Logger, closed func() bool, serve func(net.Conn)) error {
	for delay := time.Millisecond; ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			delay = time.Millisecond
			go serve(c) // ends with the connection, which the server ends
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
