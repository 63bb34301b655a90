#include "textflag.h"

// func readHolding(fd int, b *byte, pattern uint64) (same bool)
TEXT ·readHolding(SB), NOSPLIT, $0-25
	MOVQ pattern+16(FP), R12
	MOVQ R12, X3
	MOVQ R12, X14
	PSLLQ $1, X14
	MOVQ fd+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ $1, DX
	MOVQ $0, AX // read
	SYSCALL
	MOVQ X14, R8
	SHRQ $1, R8
	MOVQ X3, R9
	XORQ R12, R8
	XORQ R12, R9
	ORQ R8, R9
	SETEQ same+24(FP)
	RET
