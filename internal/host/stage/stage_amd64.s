#include "textflag.h"

// The interpreter of a table of calls. It uses no stack and no memory but the
// table: R12 is the call at hand. See callSize for the layout of a call.
TEXT stage<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $0x20001010, R12 // dataAddr+recordSize: the address of the first call
	MOVQ (R12), R12

call:
	MOVQ (R12), AX
	MOVQ 8(R12), DI
	CMPQ AX, $-1
	JEQ  load
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	JMP  done

load:
	MOVL (DI), AX
	NEGQ AX

done:
	CMPQ AX, $-65536 // the errors: up to 4095, and words that load found
	JCC  failed

store:
	MOVQ  72(R12), DI
	TESTQ DI, DI
	JEQ   next
	MOVQ  AX, (DI)
	MOVQ  80(R12), DI
	TESTQ DI, DI
	JEQ   next
	MOVQ  AX, (DI)
	MOVQ  88(R12), DI
	TESTQ DI, DI
	JEQ   next
	MOVQ  AX, (DI)

next:
	TESTQ AX, AX
	JNE   follow
	MOVQ  64(R12), R12
	JMP   call

follow:
	ADDQ $96, R12
	JMP  call

failed:
	MOVQ 56(R12), DI
	CMPQ DI, $-1
	JEQ  store
	MOVQ AX, SI
	NEGQ SI
	CMPQ DI, SI
	JEQ  store

	// Report the call and the error, and end.
	MOVQ $0x20001000, SI // dataAddr
	MOVQ R12, (SI)
	MOVQ AX, 8(SI)
	MOVQ $3, DI
	MOVQ $16, DX
	MOVQ $1, AX          // write
	SYSCALL
	MOVQ $127, DI
	MOVQ $231, AX        // exit_group
	SYSCALL
	INT  $3

TEXT stageEnd<>(SB), NOSPLIT|NOFRAME, $0
	INT $3

// func code() (start, end unsafe.Pointer)
TEXT ·code(SB), NOSPLIT, $0-16
	LEAQ stage<>(SB), AX
	MOVQ AX, start+0(FP)
	LEAQ stageEnd<>(SB), AX
	MOVQ AX, end+8(FP)
	RET
