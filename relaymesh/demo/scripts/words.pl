# Statistics of the text on stdin as one JSON object; relaymesh/demo/words.py says what they mean.
use strict;
use warnings;

binmode STDIN;
binmode STDOUT;
local $/;
my $text = <STDIN>;
$text = '' unless defined $text;

my $lines = ($text =~ tr/\n//);
$lines++ if length $text && substr($text, -1) ne "\n";
my $words = () = $text =~ /[^ \t\n\r\f\x0b]+/g;

(my $lower = $text) =~ tr/A-Z/a-z/;
my %count;
$count{$_}++ for $lower =~ /[a-z\x80-\xff]+/g;

my ($often, $times) = ('', 0);
for my $word (sort keys %count) {
    ($often, $times) = ($word, $count{$word}) if length $word >= 5 && length $word <= 40 && $count{$word} > $times;
}
printf qq({"tool":"perl","lines":%d,"words":%d,"distinct":%d,"often":"%s","times":%d,"attempt":%d}\n),
    $lines, $words, scalar keys %count, $often, $times, $ENV{RELAYMESH_ATTEMPT} || 1;
