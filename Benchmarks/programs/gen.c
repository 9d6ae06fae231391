#include <stdint.h>
#include <string.h>
#include <stdlib.h>
struct S{int a,b;double c;char d[16];};

static int h0(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+0)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<1;break;case 2:s[i].c*=1.0;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>0)t-=0;else t+=s[i].d[0];break;default:t=t*3+i;}}return t;}
double f0(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*1.5+h0(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h1(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+1)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<2;break;case 2:s[i].c*=1.1;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>17)t-=3;else t+=s[i].d[1];break;default:t=t*4+i;}}return t;}
double f1(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*2.5+h1(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h2(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+2)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<3;break;case 2:s[i].c*=1.2;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>34)t-=6;else t+=s[i].d[2];break;default:t=t*5+i;}}return t;}
double f2(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*3.5+h2(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h3(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+3)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<4;break;case 2:s[i].c*=1.3;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>51)t-=9;else t+=s[i].d[3];break;default:t=t*6+i;}}return t;}
double f3(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*4.5+h3(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h4(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+4)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<5;break;case 2:s[i].c*=1.4;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>68)t-=12;else t+=s[i].d[4];break;default:t=t*7+i;}}return t;}
double f4(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*5.5+h4(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h5(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+5)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<6;break;case 2:s[i].c*=1.5;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>85)t-=15;else t+=s[i].d[5];break;default:t=t*8+i;}}return t;}
double f5(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*6.5+h5(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h6(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+6)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<7;break;case 2:s[i].c*=1.6;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>102)t-=18;else t+=s[i].d[6];break;default:t=t*9+i;}}return t;}
double f6(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*7.5+h6(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h7(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+7)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<8;break;case 2:s[i].c*=1.7;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>119)t-=21;else t+=s[i].d[7];break;default:t=t*10+i;}}return t;}
double f7(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*8.5+h7(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h8(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+8)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<9;break;case 2:s[i].c*=1.8;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>136)t-=24;else t+=s[i].d[8];break;default:t=t*11+i;}}return t;}
double f8(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*9.5+h8(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}

static int h9(struct S*s,int n){int t=0;for(int i=0;i<n;i++){switch((s[i].a+9)&7){case 0:t+=s[i].b;break;case 1:t^=s[i].a<<10;break;case 2:s[i].c*=1.9;t+=(int)s[i].c;break;case 3:memcpy(s[i].d,&t,4);break;case 4:if(t>153)t-=27;else t+=s[i].d[9];break;default:t=t*12+i;}}return t;}
double f9(struct S*s,int n,double*x){double r=0;for(int i=0;i<n;i++){r+=x[i]*10.5+h9(s,i%16);for(int j=i;j>0;j/=2)x[j]+=x[i]/(1+j);}qsort(s,n,sizeof*s,(int(*)(const void*,const void*))strcmp);return r;}
