package gvisor

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
)

// Process 1 of a sandbox does nothing: who supervises the guest is in the sandbox
// process (see package guestos). It is one page of memory and one thread, and an
// ELF file of little more than its headers, which no compiler makes so small.

// idleCode waits for signals, of which there are none, and does so again.
var idleCode = map[string]struct {
	machine elf.Machine
	code    []byte
}{
	"amd64": {elf.EM_X86_64, []byte{
		0xb8, 0x22, 0x00, 0x00, 0x00, // mov $SYS_pause, %eax
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the beginning
	}},
	"arm64": {elf.EM_AARCH64, []byte{
		0x00, 0x00, 0x80, 0xd2, // mov x0, #0
		0x01, 0x00, 0x80, 0xd2, // mov x1, #0
		0x02, 0x00, 0x80, 0xd2, // mov x2, #0
		0x03, 0x00, 0x80, 0xd2, // mov x3, #0
		0x28, 0x09, 0x80, 0xd2, // mov x8, #SYS_ppoll
		0x01, 0x00, 0x00, 0xd4, // svc #0
		0xfa, 0xff, 0xff, 0x17, // b to the beginning
	}},
}

// idleProgram returns the program.
func idleProgram() []byte {
	const (
		address = 0x400000
		headers = 64 + 56
	)
	idle := idleCode[runtime.GOARCH]
	size := uint64(headers + len(idle.code))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(idle.machine), Version: uint32(elf.EV_CURRENT),
			Entry: address + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: address, Paddr: address, Filesz: size, Memsz: size, Align: 4096,
		},
		idle.code,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err) // a buffer, and values of fixed sizes
		}
	}
	return b.Bytes()
}

// writeIdle writes the program into the driver's directory, and returns its path.
func (d *Driver) writeIdle() (string, error) {
	path := filepath.Join(d.opts.Dir, "init")
	if err := os.WriteFile(path, idleProgram(), 0o755); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o755) // whatever the umask
}
