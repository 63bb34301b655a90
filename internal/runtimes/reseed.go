package runtimes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
)

// reseedFunction is the function of OpenSSL that has the generator from which
// all others of a process are seeded take fresh entropy from the kernel. The
// node program exports it.
const reseedFunction = "RAND_poll"

// elfMachine is the machine of the sandboxes, which is this one's.
var elfMachine = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]

// reseedObject returns a shared object that has the dynamic linker call
// reseedFunction whenever it is loaded, which the Node.js bootstrap uses (see
// snapshot.js). There is no code in it: the one entry of its table of
// initialisers is a relocation to that function.
func reseedObject(machine elf.Machine) []byte {
	const (
		wordSize = 8
		programs = 3
		entries  = 10 // of the dynamic section
		name     = "\x00" + reseedFunction + "\x00"

		dynamic = 64 + programs*56
		symbols = dynamic + entries*2*wordSize
		rela    = symbols + 2*elf.Sym64Size
		inits   = rela + 24
		strings = inits + wordSize
		size    = strings + uint64(len(name))
	)
	absolute := uint64(elf.R_X86_64_64)
	if machine == elf.EM_AARCH64 {
		absolute = uint64(elf.R_AARCH64_ABS64)
	}
	var b bytes.Buffer
	put := func(parts ...any) {
		for _, v := range parts {
			if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
				panic(err) // values of fixed size
			}
		}
	}
	put(elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: programs, Shentsize: 64,
	})
	const readWrite = uint32(elf.PF_R | elf.PF_W)
	put(
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: readWrite, Filesz: size, Memsz: size, Align: 64 << 10},
		elf.Prog64{Type: uint32(elf.PT_DYNAMIC), Flags: readWrite, Off: dynamic, Vaddr: dynamic, Paddr: dynamic,
			Filesz: symbols - dynamic, Memsz: symbols - dynamic, Align: wordSize},
		elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: readWrite, Align: 16}, // else the stack becomes executable
	)
	for _, d := range [entries]elf.Dyn64{
		{Tag: int64(elf.DT_STRTAB), Val: strings}, {Tag: int64(elf.DT_STRSZ), Val: uint64(len(name))},
		{Tag: int64(elf.DT_SYMTAB), Val: symbols}, {Tag: int64(elf.DT_SYMENT), Val: elf.Sym64Size},
		{Tag: int64(elf.DT_RELA), Val: rela}, {Tag: int64(elf.DT_RELASZ), Val: 24}, {Tag: int64(elf.DT_RELAENT), Val: 24},
		{Tag: int64(elf.DT_INIT_ARRAY), Val: inits}, {Tag: int64(elf.DT_INIT_ARRAYSZ), Val: wordSize},
		{Tag: int64(elf.DT_NULL)},
	} {
		put(d)
	}
	put(elf.Sym64{}, elf.Sym64{Name: 1, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC)})
	put(elf.Rela64{Off: inits, Info: elf.R_INFO(1, uint32(absolute))}, uint64(0))
	b.WriteString(name)
	return b.Bytes()
}
