package sentry

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform/systrap"
	"gvisor.dev/gvisor/runsc/boot/filter/config"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// A sandbox process must not make other system calls than gVisor's kernel needs.
// Compiling gVisor's rules for that takes longer than the rest of a start, and
// gVisor's Go module has no compiled ones, so the driver has a first sandbox
// compile them and gives the program to all later ones: it is the same in all,
// as each process is the first of its PID namespace and has its control socket
// at wire.ControlSocket.

// compileFilter returns the program that filters the system calls of this
// process.
func compileFilter() ([]bpf.Instruction, error) {
	opts := config.Options{
		Platform:       (*systrap.Systrap)(nil).SeccompInfo(),
		HostFilesystem: true, // directfs
		ControllerFD:   wire.ControlSocket,
	}
	allow, deny := config.Rules(opts)
	allow.Add(unix.SYS_WAITID, waitRule)
	allow.Add(unix.SYS_RECVMSG, receiveRule)
	program := seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: deny}, {Rules: allow, Action: seccomp.Allow}},
		Options:  config.SeccompOptions(opts),
	}
	instructions, _, err := program.Build()
	if err != nil {
		return nil, fmt.Errorf("compiling the system call filter: %w", err)
	}
	return instructions, nil
}

// receiveRule lets wire.Receive through the system call filter.
var receiveRule = seccomp.PerArg{seccomp.EqualTo(wire.Control), seccomp.AnyValue{}, seccomp.EqualTo(wire.ReceiveFlags)}

// systemCalls returns the filter program to install, and its bytes if it was not given.
func (j *job) systemCalls() (program []bpf.Instruction, compiled []byte, err error) {
	if len(j.Filter) > 0 {
		program, err = unmarshalFilter(j.Filter)
		return program, nil, err
	}
	if program, err = compileFilter(); err != nil {
		return nil, nil, err
	}
	return program, marshalFilter(program), nil
}

const instructionSize = 8

// marshalFilter returns the bytes of a program.
func marshalFilter(program []bpf.Instruction) []byte {
	b := make([]byte, 0, len(program)*instructionSize)
	for _, in := range program {
		b = binary.LittleEndian.AppendUint16(b, in.OpCode)
		b = append(b, in.JumpIfTrue, in.JumpIfFalse)
		b = binary.LittleEndian.AppendUint32(b, in.K)
	}
	return b
}

// unmarshalFilter undoes marshalFilter.
func unmarshalFilter(b []byte) ([]bpf.Instruction, error) {
	if len(b) == 0 || len(b)%instructionSize != 0 {
		return nil, fmt.Errorf("a system call filter of %d bytes", len(b))
	}
	program := make([]bpf.Instruction, 0, len(b)/instructionSize)
	for in := range slices.Chunk(b, instructionSize) {
		program = append(program, bpf.Instruction{
			OpCode: binary.LittleEndian.Uint16(in), JumpIfTrue: in[2], JumpIfFalse: in[3],
			K: binary.LittleEndian.Uint32(in[4:]),
		})
	}
	return program, nil
}
