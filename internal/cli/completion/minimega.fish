# fish completion for minimega. Load it with
#   minimega completion fish | source
# or put it into ~/.config/fish/completions/minimega.fish.

# The flags before -e that say which daemon to ask, and the words after it.
# Fails when there is no -e before the cursor.
function __minimega_command
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch (string replace -r '^--' - -- $words[1])
            case -e
                return 0
            case @WORDS@
                set -e words[1]
            case '-*'
            case '*'
                return 1
        end
        set -e words[1]
    end
    return 1
end

function __minimega_candidates
    set -l words (commandline -opc)
    set -l program $words[1]
    set -l opts
    set -e words[1]
    while set -q words[1]
        switch (string replace -r '^--' - -- $words[1])
            case -e
                set -e words[1]
                break
            case -base -namespace
                set -a opts $words[1] $words[2]
                set -e words[1]
            case '-base=*' '-namespace=*'
                set -a opts $words[1]
            case @WORDS@
                set -e words[1]
        end
        set -e words[1]
    end
    set -l cur (commandline -ct | string unescape)
    $program $opts complete-line $words "$cur" 2>/dev/null
end

complete -c minimega -f
complete -c minimega -n __minimega_command -a '(__minimega_candidates)'
complete -c minimega -n 'not __minimega_command; and not __fish_seen_subcommand_from completion' -a completion -d 'print a completion script'
complete -c minimega -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
@FISH@
