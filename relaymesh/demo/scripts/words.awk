# Statistics of the text on stdin as one JSON object; relaymesh/demo/words.py says what they mean. Any awk will do.
{
    lines++
    gsub(/[\r\f\v]/, " ")
    words += NF
    $0 = tolower($0)
    # What is ASCII and no letter separates words.
    gsub(/[\001-\037!-@[-`{-~]/, " ")
    for (i = 1; i <= NF; i++)
        if (count[$i]++ == 0) distinct++
}
END {
    for (word in count)
        if (length(word) >= 5 && length(word) <= 40 && (count[word] > times || (count[word] == times && (word "") < (often "")))) {
            often = word
            times = count[word]
        }
    attempt = ENVIRON["RELAYMESH_ATTEMPT"]
    printf "{\"tool\":\"awk\",\"lines\":%d,\"words\":%d,\"distinct\":%d,", lines, words, distinct
    printf "\"often\":\"%s\",\"times\":%d,\"attempt\":%d}\n", often, times, attempt ? attempt : 1
}
