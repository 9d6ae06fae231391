my $s=''; my $x=12345; for(1..60000){$x=($x*1103515245+12345)&0x7fffffff; $s.=chr(97+$x%26); $s.=' ' if $x%7==0; $s.=($x%1000) if $x%11==0;}
my %h; my $n=0;
for my $r(1..12){ while($s=~/([a-z]+)(\d*)/g){$h{$1}++; $n+=length $2} my $t=$s; $t=~s/([aeiou])([^aeiou ]{2,})/$2$1/g; $t=~tr/a-m/n-z/; $n+=()=$t=~/\b\w{3,6}\b/g; my @w=sort split / /,$t; $n+=@w; }
print scalar(keys %h)," $n\n";
