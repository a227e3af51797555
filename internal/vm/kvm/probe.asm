# The test guest that tells whether KVM works: a BIOS of its own, entered at
# the reset vector, that goes from real mode to 64-bit mode with paging and
# does there what a kernel does early: exceptions, a page fault that is mended,
# MSRs, SSE, a timer interrupt, a system call, and a hundred million plain
# instructions. After each it writes a letter to the debug port:
#
#   R real mode      L long mode    I exception    F page fault   M MSRs, cpuid
#   S SSE            T timer        U ring 3 and back             . 1/8 of the plain work
#
# and at the end leaves through isa-debug-exit. Where the processor is
# emulated instruction by instruction, the plain work takes minutes.
#
# Build: as --64 probe.asm -o probe.o && ld -m elf_x86_64 -Ttext 0xf0000 --oformat binary -e _start -o probe.bin probe.o

.set DEBUG, 0xe9
.set EXIT, 0xf4
.set PML4, 0x10000
.set PDPT, 0x11000
.set PD, 0x12000
.set PT, 0x13000		# for the 2 MiB at 16 MiB, empty at first
.set IDT, 0x14000
.set PD3, 0x15000		# the fourth GiB
.set APIC, 0xfee00000
.set STACK, 0x1f000
.set COUNT, 0x20000		# of interrupts
.set BUF, 0x200000		# 4 MiB for the plain work
.set UNMAPPED, 0x1003000
.set SPARE, 0x30000		# page that mends the fault

.macro say c
	movb $\c, %al
	outb %al, $DEBUG
.endm

.section .text, "ax"
.globl _start
_start:
.code16
	cli
	say 'R'
	lgdtl %cs:(gdtr - _start)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x08, $protected

.code32
protected:
	movw $0x18, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $STACK, %esp
	cld
	xorl %eax, %eax		# clear all tables
	movl $PML4, %edi
	movl $(0x11000 / 4), %ecx
	rep stosl
	movl $(PDPT + 7), PML4	# present, writable, user
	movl $(PD + 7), PDPT
	movl $8, %ecx		# 16 MiB as they are, in pages of 2 MiB
	movl $PD, %edi
	movl $0x87, %eax
1:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 1b
	movl $(PT + 7), PD + 8 * 8
	movl $(PD3 + 7), PDPT + 8 * 3
	movl $(APIC + 0x9b), PD3 + 8 * ((APIC >> 21) & 511)	# uncached
	movl %cr4, %eax
	orl $0x620, %eax	# PAE, OSFXSR, OSXMMEXCPT
	movl %eax, %cr4
	movl $PML4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx	# EFER: SCE, LME, NXE
	rdmsr
	orl $0x901, %eax
	wrmsr
	movl %cr0, %eax
	andl $~4, %eax		# no EM
	orl $0x80010002, %eax	# PG, WP, MP
	movl %eax, %cr0
	ljmpl $0x10, $long

.code64
long:
	say 'L'
	movl $IDT, %edi
	leaq breakpoint(%rip), %rsi
	movl $3, %ecx
	call gate
	leaq pagefault(%rip), %rsi
	movl $14, %ecx
	call gate
	leaq timer(%rip), %rsi
	movl $0x20, %ecx
	call gate
	lidt idtr(%rip)

	int3
	cmpl $1, COUNT
	jne fail
	say 'I'

	movl $UNMAPPED, %ebx
	movl $0x12345678, (%rbx)
	cmpl $0x12345678, SPARE
	jne fail
	say 'F'

	xorl %eax, %eax
	cpuid
	movl $0xc0000100, %ecx	# FS base
	movl $0x5000, %eax
	xorl %edx, %edx
	wrmsr
	rdmsr
	cmpl $0x5000, %eax
	jne fail
	movl $0xc0000102, %ecx	# kernel GS base
	movl $0x6000, %eax
	wrmsr
	swapgs
	movl $0xc0000101, %ecx	# GS base
	rdmsr
	cmpl $0x6000, %eax
	jne fail
	rdtsc
	say 'M'

	movl $3, %eax
	cvtsi2sd %eax, %xmm0
	mulsd %xmm0, %xmm0
	cvttsd2si %xmm0, %eax
	cmpl $9, %eax
	jne fail
	say 'S'

	movb $0xff, %al		# nothing from the old interrupt controllers
	outb %al, $0x21
	outb %al, $0xa1
	movl $APIC, %ebx
	movl $0x1ff, 0xf0(%rbx)	# on
	movl $0xb, 0x3e0(%rbx)	# timer: undivided,
	movl $0x20020, 0x320(%rbx)	# periodic, vector 0x20,
	movl $1000000, 0x380(%rbx)	# every millisecond or so
2:	sti
	hlt
	cli
	cmpl $4, COUNT		# the breakpoint and three ticks
	jb 2b
	movl $0x10020, 0x320(%rbx)	# off
	say 'T'

	movl $0xc0000081, %ecx	# STAR: kernel 0x10/0x18, user 0x2b/0x33
	xorl %eax, %eax
	movl $0x00230010, %edx
	wrmsr
	incl %ecx		# LSTAR
	leaq syscall_entry(%rip), %rax
	xorl %edx, %edx
	wrmsr
	movl $0xc0000084, %ecx	# flags to clear: IF
	movl $0x200, %eax
	wrmsr
	pushq $0x2b
	pushq $STACK
	pushq $2
	pushq $0x33
	leaq user(%rip), %rax
	pushq %rax
	iretq
user:
	syscall
	jmp fail

syscall_entry:
	movl $STACK, %esp
	say 'U'

	movl $8, %edx
	xorl %esi, %esi
3:	movl $4000000, %ecx
4:	addl %ecx, BUF(%rsi)
	addl $64, %esi
	andl $0x3fffff, %esi
	decl %ecx
	jnz 4b
	say '.'
	decl %edx
	jnz 3b
	movb $0x10, %al		# QEMU ends with status 33
	outb %al, $EXIT
fail:	cli
	hlt
	jmp fail

# gate makes interrupt rcx go to rsi.
gate:	shll $4, %ecx
	movl %esi, %eax
	movw %ax, (%rdi, %rcx)
	movl $0x8e000010, 2(%rdi, %rcx)
	shrl $16, %eax
	movw %ax, 6(%rdi, %rcx)
	ret

breakpoint:
	incl COUNT
	iretq

pagefault:
	movl $(SPARE + 7), PT + 8 * 3
	invlpg UNMAPPED
	addq $8, %rsp
	iretq

timer:	incl COUNT
	movl $0, 0xb0(%rbx)	# end of interrupt
	iretq

	.balign 8
gdt:	.quad 0
	.quad 0x00cf9b000000ffff	# 08 code, 32 bits
	.quad 0x00af9b000000ffff	# 10 code, 64 bits
	.quad 0x00cf93000000ffff	# 18 data
	.quad 0
	.quad 0x00cff3000000ffff	# 28 data of ring 3
	.quad 0x00affb000000ffff	# 30 code of ring 3
gdtr:	.word . - gdt - 1
	.long gdt
idtr:	.word 0x20 * 16 + 15
	.quad IDT
