d={}
for r in range(2):
    for i in range(60000):
        k="k%d"%(i*7919%100003); d[k]=d.get(k,0)+i
s="".join(sorted(d))[:400000]
c={}
for w in s.split("k"): c[w]=c.get(w,0)+1
t=0
for i in range(60000): t+=len(s[i:i+5].upper().replace("1","xx"))
import re,json
x=json.loads(json.dumps(d)); t+=len(re.findall(r"k1\d+2",s)); l=sorted(x.items(),key=lambda z:-z[1])
print(len(x),t,l[0])
