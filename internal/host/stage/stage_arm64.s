#include "textflag.h"

// The interpreter of a table of calls, see stage_amd64.s. R19 is the call at
// hand.
TEXT stage<>(SB), NOSPLIT|NOFRAME, $0
	MOVD $0x20001010, R19 // dataAddr+recordSize: the address of the first call
	MOVD (R19), R19

call:
	MOVD (R19), R8
	MOVD 8(R19), R0
	CMN  $1, R8
	BEQ  load
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD 40(R19), R4
	MOVD 48(R19), R5
	SVC
	JMP  done

load:
	MOVWU (R0), R0
	NEG   R0, R0

done:
	MOVD $-65536, R9 // the errors: up to 4095, and words that load found
	CMP  R9, R0
	BHS  failed

store:
	MOVD 72(R19), R9
	CBZ  R9, next
	MOVD R0, (R9)
	MOVD 80(R19), R9
	CBZ  R9, next
	MOVD R0, (R9)
	MOVD 88(R19), R9
	CBZ  R9, next
	MOVD R0, (R9)

next:
	CBNZ R0, follow
	MOVD 64(R19), R19
	JMP  call

follow:
	ADD $96, R19
	JMP call

failed:
	MOVD 56(R19), R9
	CMN  $1, R9
	BEQ  store
	NEG  R0, R10
	CMP  R9, R10
	BEQ  store

	// Report the call and the error, and end.
	MOVD $0x20001000, R1 // dataAddr
	MOVD R19, (R1)
	MOVD R0, 8(R1)
	MOVD $3, R0
	MOVD $16, R2
	MOVD $64, R8         // write
	SVC
	MOVD $127, R0
	MOVD $94, R8         // exit_group
	SVC
	BRK

TEXT stageEnd<>(SB), NOSPLIT|NOFRAME, $0
	BRK

// func code() (start, end unsafe.Pointer)
TEXT ·code(SB), NOSPLIT, $0-16
	MOVD $stage<>(SB), R0
	MOVD R0, start+0(FP)
	MOVD $stageEnd<>(SB), R0
	MOVD R0, end+8(FP)
	RET
